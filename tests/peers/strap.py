"""A Polar H10 that is not there: its GATT services on a virtual Bluetooth link, and the backends for bleak to reach it.

`Air` is the link, with the computer's own adapter on it, in a thread of its own as the Bluetooth of an operating system
is; `Strap` is a peripheral on it. All that passes between them are real ATT bytes (bumble's `LocalLink`).
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.client import BaseBleakClient
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner
from bleak.backends.service import BleakGATTService, BleakGATTServiceCollection
from bleak.exc import BleakError
from bumble.att import ATT_Error, ErrorCode
from bumble.controller import Controller
from bumble.core import AdvertisingData, InvalidStateError, ProtocolError
from bumble.device import Device, Peer
from bumble.gatt import Characteristic, CharacteristicValue, Service
from bumble.hci import Address
from bumble.host import Host
from bumble.link import LocalLink
from bumble.transport.common import AsyncPipeSink

PMD = "FB005C80-02E7-F387-1CAD-8ACD2D8DF0C8"
CONTROL = "FB005C81-02E7-F387-1CAD-8ACD2D8DF0C8"
DATA = "FB005C82-02E7-F387-1CAD-8ACD2D8DF0C8"
SECOND = 1_000_000_000
P = Characteristic.Properties


def frame(stamp: int, samples: np.ndarray) -> bytes:
    """One ECG notification: 10 bytes of head and 24 bit samples."""
    body = b"".join(int(sample).to_bytes(3, "little", signed=True) for sample in samples)
    return struct.pack("<BQB", 0, stamp, 0) + body


class Air:
    """The virtual link, its thread, and the adapter of the computer on it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._addresses = 0
        self.link = self.run(self._make_link())
        self.adapter = self.run(self.power("computer", "F0:F0:F0:F0:F0:F0"))
        self.straps: list[Strap] = []
        self.client = type("VirtualClient", (Client,), {"air": self})
        self.scanner = type("VirtualScanner", (Scanner,), {"air": self})

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    async def _make_link(self) -> LocalLink:
        return LocalLink()

    async def power(self, name: str, address: str, services: list[Service] = ()) -> Device:
        controller = Controller(name, link=self.link, public_address=address)
        device = Device(name=name, address=Address(address), host=Host(controller, AsyncPipeSink(controller)))
        device.add_services(services)
        await device.power_on()
        return device

    def close(self) -> None:
        async def end() -> None:
            self.loop.set_exception_handler(lambda *_: None)  # of commands that closing cuts off
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self.run(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()


class Strap:
    """A strap on the air. Attributes may be changed at any time; methods are called from the test's thread."""

    def __init__(
        self,
        air: Air,
        name: str = "Polar H10 1A2B3C12",
        address: str = "24:AC:AC:01:02:03",
        *,
        firmware: str = "3.0.56",
        battery: int = 80,
        features: int = 0b101,
        mtu: int = 247,
        on: bool = True,
    ) -> None:
        self.air, self.name, self.address = air, name, address
        self.battery, self.mtu, self.on = battery, mtu, on
        self.features = features
        self.refuses: dict[int, list[int]] = {}
        """Status codes to answer next, by operation; then all is granted."""
        self.deaf = False
        """Answers no question of the control point."""
        self.chatty = False
        """Instead of an answer, answers something else again and again."""
        self.shy = False
        """Does not let its battery be read."""
        self.looked = 0
        """How often its battery was asked for."""
        self.heavy = False
        """Lets nobody connect."""
        self.echoes = False
        """What is read of the control point is indicated as well, as BlueZ may do."""
        self.streaming = False
        self.asked: list[bytes] = []
        self.delivered = threading.Semaphore(0)
        self.connection: Any = None
        self.control = Characteristic(
            CONTROL,
            P.READ | P.WRITE | P.INDICATE,
            Characteristic.READABLE | Characteristic.WRITEABLE,
            CharacteristicValue(read=lambda _: bytes([0x0F, self.features, 0]), write=self._on_control),
        )
        self.data = Characteristic(DATA, P.NOTIFY, Characteristic.READABLE, b"")
        self.beats = Characteristic("2A37", P.NOTIFY, Characteristic.READABLE, b"")

        def text(uuid: str, value: str) -> Characteristic:
            return Characteristic(uuid, P.READ, Characteristic.READABLE, value.encode() + b"\0")

        self.services = [
            Service(
                "180A",
                [
                    text("2A24", "H10"),
                    text("2A25", "1A2B3C12"),
                    text("2A26", firmware),
                    text("2A29", "Polar Electro Oy"),
                ],
            ),
            Service(
                "180F",
                [
                    Characteristic(
                        "2A19",
                        P.READ,
                        Characteristic.READABLE,
                        CharacteristicValue(read=lambda _: self._on_battery()),
                    )
                ],
            ),
            Service("180D", [self.beats]),
            Service(PMD, [self.control, self.data]),
        ]
        air.straps.append(self)
        air.run(self._begin())

    async def _begin(self) -> None:
        self.device = await self.air.power(self.name, self.address, self.services)
        self.device.gatt_server.max_mtu = self.mtu
        self.device.on("connection", self._on_connection)
        if self.on:
            await self._advertise()

    async def _advertise(self) -> None:
        name = AdvertisingData([(AdvertisingData.COMPLETE_LOCAL_NAME, self.name.encode())])
        await self.device.start_advertising(
            advertising_data=bytes(name), advertising_interval_min=20, advertising_interval_max=20
        )

    def _on_connection(self, connection: Any) -> None:
        self.connection = connection
        connection.on("disconnection", self._on_disconnection)

    def _on_disconnection(self, *_: object) -> None:
        self.connection = None
        self.streaming = False
        if self.on:
            self._task = asyncio.ensure_future(self._advertise())

    def _on_battery(self) -> bytes:
        self.looked += 1
        if self.shy:
            raise ATT_Error(ErrorCode.READ_NOT_PERMITTED)
        return bytes([self.battery])

    async def _chat(self, connection: Any) -> None:
        while self.connection is not None:
            await self.device.gatt_server.indicate_subscriber(connection, self.control, bytes([0xF0, 9, 0, 0]))
            await asyncio.sleep(0.05)

    async def _on_control(self, connection: Any, request: bytes) -> None:
        self.asked.append(bytes(request))
        if self.chatty:
            self._answer = asyncio.ensure_future(self._chat(connection))
            return
        if self.deaf:
            return
        operation, kind = request[0], request[1]
        status = self.refuses.get(operation, [])
        code = status.pop(0) if status else 0
        answer = bytes([0xF0, operation, kind, code])
        if not code:
            answer += b"\0"
            if operation == 1:
                answer += bytes.fromhex("00 01 82 00 01 01 0e 00")
            self.streaming = operation == 2 or (self.streaming and operation != 3)
        self._answer = asyncio.ensure_future(
            self.device.gatt_server.indicate_subscriber(connection, self.control, answer)
        )

    def _notify(self, characteristic: Characteristic, value: bytes) -> None:
        async def notify() -> None:
            await self.device.gatt_server.notify_subscriber(self.connection, characteristic, value)

        self.air.run(notify())
        assert self.delivered.acquire(timeout=10), "the notification did not arrive"

    def send(self, value: bytes) -> None:
        """Notify of ECG, and wait until the other side has dealt with it."""
        assert self.streaming, "nobody has started ECG"
        self._notify(self.data, value)

    def beat(self, value: bytes) -> None:
        self._notify(self.beats, value)

    def drop(self) -> None:
        """Out of reach for a moment: the connection breaks."""
        self.air.run(self.connection.disconnect())

    def take_off(self) -> None:
        self.on = False
        self.drop()

    def put_on(self) -> None:
        self.on = True
        self.air.run(self._advertise())


class Scanner(BaseBleakScanner):
    """Advertisements on the air, for `BleakScanner(backend=...)`."""

    air: Air

    def __init__(self, detection_callback: Any, service_uuids: Any, scanning_mode: str, **_: Any) -> None:
        super().__init__(detection_callback, service_uuids)

    async def start(self) -> None:
        self.seen_devices = {}
        self._loop = asyncio.get_running_loop()
        await self._there(self._listen(True))

    async def stop(self) -> None:
        await self._there(self._listen(False))

    async def _listen(self, on: bool) -> None:
        adapter = self.air.adapter
        if on:
            adapter.on("advertisement", self._on_advertisement)
            await adapter.start_scanning()
        else:
            adapter.remove_listener("advertisement", self._on_advertisement)
            await adapter.stop_scanning()

    def _on_advertisement(self, advertisement: Any) -> None:
        name = advertisement.data.get(AdvertisingData.COMPLETE_LOCAL_NAME)
        self._loop.call_soon_threadsafe(self._seen, str(advertisement.address).split("/")[0], name, advertisement.rssi)

    def _seen(self, address: str, name: str | None, rssi: int) -> None:
        said = AdvertisementData(name, {}, {}, [], None, rssi, ())
        self.call_detection_callbacks(self.create_or_update_device(address, address, name, None, said), said)

    async def _there(self, work: Any) -> Any:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.air.loop))


class Client(BaseBleakClient):
    """A connection over the air, for `BleakClient(backend=...)`."""

    air: Air

    def __init__(self, strap: Any, *, services: Any = None, **options: Any) -> None:
        super().__init__(strap, disconnected_callback=options["disconnected_callback"], timeout=options["timeout"])
        self._peer: Peer | None = None

    @property
    def mtu_size(self) -> int:
        return self._peer.connection.att_mtu if self._peer else 23

    @property
    def is_connected(self) -> bool:
        return self._peer is not None

    async def _there(self, work: Any) -> Any:
        try:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.air.loop))
        except (ProtocolError, InvalidStateError, ATT_Error) as error:
            raise BleakError(str(error)) from error

    async def connect(self, pair: bool, **_: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._strap = next((strap for strap in self.air.straps if strap.address == self.address), None)
        if self._strap is None or not self._strap.on or self._strap.heavy:
            await asyncio.sleep(3600)
        await self._there(self._connect())

    async def _connect(self) -> None:
        connection = await self.air.adapter.connect(Address(self.address))
        connection.on("disconnection", self._on_disconnection)
        peer = Peer(connection)
        await peer.request_mtu(247)
        await peer.discover_all()
        self.services = BleakGATTServiceCollection()
        for found in peer.services:
            service = BleakGATTService(found, found.handle, _long(found.uuid))
            self.services.add_service(service)
            for characteristic in found.characteristics:
                self.services.add_characteristic(
                    BleakGATTCharacteristic(
                        characteristic, characteristic.handle, _long(characteristic.uuid), [], lambda: 20, service
                    )
                )
        self._peer = peer

    def _on_disconnection(self, *_: object) -> None:
        self._peer = None
        if self._disconnected_callback is not None:
            self._loop.call_soon_threadsafe(self._disconnected_callback)

    def _connected(self) -> Peer:
        if self._peer is None:
            raise BleakError("Not connected")
        return self._peer

    async def disconnect(self) -> None:
        if self._peer is not None:
            await self._there(self._peer.connection.disconnect())

    async def read_gatt_char(self, characteristic: BleakGATTCharacteristic, **_: Any) -> bytearray:
        self._connected()
        return bytearray(await self._there(characteristic.obj.read_value()))

    async def write_gatt_char(self, characteristic: BleakGATTCharacteristic, data: Any, response: bool) -> None:
        self._connected()
        await self._there(characteristic.obj.write_value(bytes(data), with_response=response))

    async def start_notify(
        self, characteristic: BleakGATTCharacteristic, callback: Callable[[bytearray], None], **_: Any
    ) -> None:
        peer, strap = self._connected(), self._strap

        def deal(value: bytes) -> None:
            try:
                callback(bytearray(value))
            finally:
                if not characteristic.uuid.startswith("fb005c81"):
                    strap.delivered.release()

        def arrive(value: bytes) -> None:
            self._loop.call_soon_threadsafe(deal, value)

        await self._there(peer.subscribe(characteristic.obj, arrive))

    async def stop_notify(self, characteristic: BleakGATTCharacteristic) -> None:
        await self._there(self._connected().unsubscribe(characteristic.obj))

    async def read_gatt_descriptor(self, descriptor: Any, **_: Any) -> bytearray:
        raise NotImplementedError

    async def write_gatt_descriptor(self, descriptor: Any, data: Any) -> None:
        raise NotImplementedError

    async def pair(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError

    async def unpair(self) -> None:
        raise NotImplementedError


def _long(uuid: Any) -> str:
    """A UUID as bleak spells it."""
    text = uuid.to_hex_str("-").lower()
    return f"0000{text}-0000-1000-8000-00805f9b34fb" if len(text) == 4 else text
