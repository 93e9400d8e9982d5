"""Polar H10 chest straps over Bluetooth: ``polar:Polar H10 1A2B3C12``, ``polar:1A2B3C12``, ``polar:24:AC:AC:01:02:03``.

``polar:`` alone takes the only strap in reach. Options follow a question mark:
``polar:1A2B3C12?delay=0.05&delay_sd=0.01`` subtracts a constant delay of 50 ms, known to 10 ms, from every stamp. Left
away, nothing is subtracted: then the stamps are late by the fastest way from the electrode through radio and computer,
which software alone cannot measure.

Two streams: ``.../ecg``, 130 Hz in uV, its stamps from the strap's own clock laid on the session clock by
`devices.clock.DeviceClock`; and ``.../rr``, events "hr 74 bpm" and "rr 812.5 ms", stamped when they arrived, which is
up to a second after the beat (of several intervals in one notification the older ones lie their successors earlier).

A strap that is lost is looked for again until the session ends, with growing pauses.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar
from urllib.parse import parse_qsl

import numpy as np
from bleak import BleakClient, BleakScanner
from bleak.backends.client import BaseBleakClient
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner
from bleak.exc import BleakBluetoothNotAvailableError, BleakError

from devices.api import Chunk, DeviceError, Events, Found, Item, Notice, StreamInfo
from devices.lsl import lsl_clock
from devices.polar_frames import (
    ALREADY_IN_STATE,
    GET,
    RATE,
    RESOLUTION,
    SAMPLE_RATE,
    Answer,
    Frames,
    decode_beats,
    offers_ecg,
    parse_answer,
    rr_times,
    settings_request,
    start_request,
    stop_request,
)

CONTROL = "fb005c81-02e7-f387-1cad-8acd2d8df0c8"
DATA = "fb005c82-02e7-f387-1cad-8acd2d8df0c8"
HEART_RATE = "00002a37-0000-1000-8000-00805f9b34fb"
BATTERY = "00002a19-0000-1000-8000-00805f9b34fb"
DESCRIPTION = {
    "model": "00002a24-0000-1000-8000-00805f9b34fb",
    "serial": "00002a25-0000-1000-8000-00805f9b34fb",
    "firmware": "00002a26-0000-1000-8000-00805f9b34fb",
    "manufacturer": "00002a29-0000-1000-8000-00805f9b34fb",
}
FAULTS = (BleakError, OSError, TimeoutError, EOFError)
"""What Bluetooth may raise; D-Bus, where it is spoken, raises errors of files and sockets."""
LOW_BATTERY = 20
FORGIVEN = 60.0
"""Seconds without a refused notification after which they are no longer a problem."""
WAITING = 4000
"""Items that wait for the reader at most, some twenty minutes; then the oldest goes, its samples counted as lost."""
LONGEST_DELAY = 10.0
OPENINGS = 2
"""Connecting is tried twice at the start: the first connection after a scan often breaks."""

_ADDRESS = re.compile(r"([0-9A-F]{2}:){5}[0-9A-F]{2}|[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}", re.IGNORECASE)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Radio:
    """Which Bluetooth is used, the computer's own when not said, and how long is waited for what, in seconds."""

    client: type[BaseBleakClient] | None = None
    scanner: type[BaseBleakScanner] | None = None
    scan: float = 10.0
    listen: float = 2.0
    """After the first strap that fits, for a second one: then the address must say which."""
    connect: float = 20.0
    answer: float = 5.0
    first: float = 40.0
    """For the first ECG: the strap has been seen to take 25."""
    silence: float = 10.0
    """Without ECG; then the strap is connected anew."""
    hold: float = 1.2
    """For a packet that is missing before one that came."""
    pauses: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
    """Before each attempt to find a lost strap; the last one again and again."""
    battery: float = 300.0


class _LostError(Exception):
    """The connection is of no use any more; says why."""


class _RefusedError(Exception):
    """The strap has answered, and said no: asking again does not help."""


def discover(seconds: float, *, radio: Radio | None = None) -> list[Found]:
    """Polar straps in reach, looking for ``seconds``. Raises DeviceError where there is no Bluetooth."""
    thread = _Loop("scan for straps")
    try:
        seen = thread.run(_scan(radio or Radio(), seconds, seconds, _is_strap), "polar", seconds + 30.0)
    finally:
        thread.stop()
    return [Found(f"polar:{_call(strap)}", f"{_clean(strap.name or 'unnamed')}, {strap.address}") for strap in seen]


def connect(rest: str, *, radio: Radio | None = None, clock: Callable[[], float] = lsl_clock) -> PolarDevice:
    """The strap that ``rest`` names, found but not yet connected. ``clock`` is the session's. Raises DeviceError."""
    address = f"polar:{_clean(rest)}" if rest.strip() else "polar"
    wanted, delay, delay_sd = _parse(rest, address)
    radio = radio or Radio()
    thread = _Loop(address)
    try:
        found = thread.run(_find(radio, wanted), address, radio.scan + 30.0)
        if not found:
            who = "the strap" if wanted else "strap"
            raise DeviceError(
                f"{address}: {'' if wanted else 'no '}{who} {'did not answer' if wanted else 'answered'} in "
                f"{radio.scan:g} s. Wet the electrodes and put the strap on, close the Polar app on every phone near, "
                "or list straps with `insula devices polar`."
            )
        if len(found) > 1:
            names = ", ".join(_clean(f"{strap.name} ({strap.address})") for strap in found[:8])
            raise DeviceError(
                f"{address}: {len(found)} straps fit: {names}. Choose one, for example polar:{found[0].address}."
            )
    except BaseException:
        thread.stop()
        raise
    return PolarDevice(address, found[0], thread, radio, clock, delay, delay_sd)


class PolarDevice:
    """One strap. All Bluetooth happens in a thread of its own, from `connect` to the end of the ``with`` block."""

    def __init__(
        self,
        address: str,
        strap: BLEDevice,
        thread: _Loop,
        radio: Radio,
        clock: Callable[[], float],
        delay: float,
        delay_sd: float,
    ) -> None:
        name = _clean(strap.name or strap.address)
        self._address = address if address != "polar" else f"polar:{name}"
        self._strap = strap
        self._thread = thread
        self._radio = radio
        self._now = clock
        self._delay = delay
        plain = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)[:40]
        source = f"polar:{_call(strap)}"
        if delay or delay_sd:
            source += f"?delay={delay:g}&delay_sd={delay_sd:g}"
        self._ecg = StreamInfo(
            key=f"{plain}/ecg", kind="ecg", channels=("ECG",), rate=float(RATE), unit="uV", name=name, source=source
        )
        self._rr = StreamInfo(
            key=f"{plain}/rr", kind="rr", channels=("beats",), rate=0.0, unit="", name=name, source=source
        )
        known = f"known to {delay_sd * 1e3:g} ms" if delay_sd else "its uncertainty not given"
        self._identity = {
            "name": name,
            "address": strap.address,
            "delay": f"{delay * 1e3:g} ms subtracted from every stamp, {known}",
        }
        self._items: deque[Item] = deque()
        self._dropped = 0  # samples that were to stand before those that wait
        self._arrived = threading.Condition()
        self._opened: Future[None] = Future()
        self._kept: Future[None] | None = None
        self._failure: BaseException | None = None
        # What follows belongs to the thread of the loop.
        self._frames = Frames(self._ecg.key, delay, delay_sd)
        self._state = self._doubt = self._warning = ""
        self._last_beat = -math.inf
        self._refused = 0
        self._refused_at = -math.inf
        self._heard = 0.0
        self._streaming = False
        self._contact: bool | None = None
        self._warned_at = 101
        self._answers: asyncio.Queue[bytes] = asyncio.Queue(8)
        self._flush: asyncio.TimerHandle | None = None

    @property
    def streams(self) -> Sequence[StreamInfo]:
        return (self._ecg, self._rr)

    @property
    def problem(self) -> str:
        """A line for each thing that is wrong, "" when all is well. May be read from any thread."""
        return "\n".join(f"{self._address}: {text}" for text in (self._state, self._doubt) if text)

    @property
    def identity(self) -> Mapping[str, str]:
        """Name, address, model, serial, firmware and manufacturer of the strap, its battery, the delay subtracted."""
        return dict(self._identity)

    def __enter__(self) -> Self:
        if self._kept is not None or self._thread.stopped:
            raise DeviceError(f"{self._address}: a device is opened once.")
        self._kept = self._thread.submit(self._keep())
        radio = self._radio
        try:
            self._opened.result(
                OPENINGS * (radio.connect + 8 * radio.answer + radio.scan) + sum(radio.pauses[:OPENINGS])
            )
        except BaseException as error:
            self.__exit__()
            if isinstance(error, TimeoutError):
                raise DeviceError(
                    f"{self._address}: Bluetooth does not come back from connecting. Restart it."
                ) from error
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        if self._kept is not None:
            self._kept.cancel()
        self._thread.stop(2 * self._radio.answer)

    def read(self, timeout: float) -> Iterable[Item]:
        """What has come; waits at most ``timeout`` seconds for the first item."""
        if self._failure is not None:
            raise self._failure
        with self._arrived:
            if not self._items:
                self._arrived.wait(max(timeout, 0.0))
            items = list(self._items)
            self._items.clear()
            for at, item in enumerate(items):
                if self._dropped and isinstance(item, Chunk):
                    items[at] = replace(item, lost=item.lost + self._dropped)
                    self._dropped = 0
        return items

    # -- the thread of the loop: connections -------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Connect, and connect again, until cancelled."""
        try:
            attempt = 0
            while True:
                why = ""
                try:
                    await self._connection()
                except _RefusedError as error:
                    why = str(error)
                    if not self._opened.done():
                        self._opened.set_exception(DeviceError(f"{self._address}: {why}"))
                        return
                except (_LostError, *FAULTS) as error:
                    why = _in_words(error)
                    if not self._opened.done() and attempt + 1 >= OPENINGS:
                        self._opened.set_exception(
                            DeviceError(
                                f"{self._address}: found, but not usable: {why}. "
                                f"{self._warning or 'Take the strap off and on again'}."
                            )
                        )
                        return
                now = self._now()
                if self._streaming:
                    self._give(self._frames.flush())
                    self._streaming = False
                    attempt = 0
                    self._frames.leave()
                    self._say(f"strap lost: {why}", now)
                pause = self._radio.pauses[min(attempt, len(self._radio.pauses) - 1)]
                attempt += 1
                # An alarm of the session: one text, without a count, until it is back.
                self._state = f"strap lost: {why}; looking for it until it is back: wear it, wet, and come near"
                await asyncio.sleep(pause)
                with contextlib.suppress(*FAULTS):
                    seen = await _scan(
                        self._radio, self._radio.scan, 0.0, lambda strap: strap.address == self._strap.address
                    )
                    self._strap = seen[0] if seen else self._strap
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._failure = error  # to whoever reads: nothing may go silent
            if not self._opened.done():
                self._opened.set_exception(error)
            raise

    async def _connection(self) -> None:
        """One connection from its beginning to its end, which is always an exception."""
        radio = self._radio
        gone = asyncio.Event()
        backend: dict[str, Any] = {} if radio.client is None else {"backend": radio.client}
        client = BleakClient(self._strap, lambda _: gone.set(), timeout=radio.connect, **backend)
        try:
            async with asyncio.timeout(radio.connect):
                await client.connect()
        except TimeoutError:
            raise _LostError(f"it does not let itself be connected in {radio.connect:g} s") from None
        try:
            self._frames.link()
            self._heard = asyncio.get_running_loop().time()
            await self._describe(client)
            await self._begin(client)
            if not self._opened.done():
                self._opened.set_result(None)
            await self._watch(client, gone)
        finally:
            with contextlib.suppress(*FAULTS):
                async with asyncio.timeout(radio.answer):
                    await client.disconnect()

    async def _describe(self, client: BleakClient) -> None:
        for name, characteristic in DESCRIPTION.items():
            if value := await self._read(client, characteristic):
                self._identity[name] = _clean(value.decode("utf-8", errors="replace").rstrip("\0"))
        await self._look_at_battery(client)
        if warning := firmware_warning(self._identity.get("firmware", ""), sys.platform):
            if not self._warning:
                self._say(warning, self._now())
            self._warning = warning

    async def _read(self, client: BleakClient, characteristic: str) -> bytes:
        """What can be done without: b"" when the strap does not say. Whether it is there at all shows elsewhere."""
        if client.services.get_characteristic(characteristic) is not None:
            with contextlib.suppress(*FAULTS):
                async with asyncio.timeout(self._radio.answer):
                    return bytes(await client.read_gatt_char(characteristic))
        return b""

    async def _look_at_battery(self, client: BleakClient) -> None:
        value = await self._read(client, BATTERY)
        if not value or value[0] > 100:
            return
        percent = value[0]
        self._identity["battery"] = f"{percent} %"
        if percent <= LOW_BATTERY and percent <= self._warned_at - 5:
            self._warned_at = percent
            self._say(f"battery of the strap at {percent} %: change it (CR2025)", self._now())

    async def _begin(self, client: BleakClient) -> None:
        """The exchange on the control point that starts ECG."""
        for characteristic in (CONTROL, DATA):
            if client.services.get_characteristic(characteristic) is None:
                firmware = self._identity.get("firmware", "unknown")
                raise _RefusedError(
                    f"this device has no measurement service (firmware {firmware}). It must be a Polar H10; "
                    "one with firmware 2 needs an update with the Polar app."
                )
        while not self._answers.empty():
            self._answers.get_nowait()
        await self._in_time(client.start_notify(CONTROL, self._on_answer), "the control point")
        features = bytes(await self._in_time(client.read_gatt_char(CONTROL), "the control point"))
        try:
            ecg = offers_ecg(features)
        except ValueError as error:
            raise _LostError(str(error)) from error
        if not ecg:
            model = self._identity.get("model", "this device")
            raise _RefusedError(f"{model} measures no ECG. It must be a Polar H10.")
        await self._in_time(client.start_notify(DATA, self._on_data), "the ECG characteristic")
        if client.services.get_characteristic(HEART_RATE) is not None:
            await self._in_time(client.start_notify(HEART_RATE, self._on_beats), "the heart rate")
        offer = await self._ask(client, settings_request(), "the ECG settings")
        for name, value, unit in ((SAMPLE_RATE, RATE, "Hz"), (RESOLUTION, 14, "bit")):
            if value not in offer.settings.get(name, (value,)):
                raise _RefusedError(f"the strap offers ECG with {offer.settings[name]} {unit}, not with {value}.")
        start = await self._ask(client, start_request(), "to start ECG", granted=(0, ALREADY_IN_STATE))
        if start.status == ALREADY_IN_STATE:  # of a connection that broke; its settings are not known
            await self._ask(client, stop_request(), "to stop an earlier ECG")
            await self._ask(client, start_request(), "to start ECG")
        self._state = "connected, waiting for the first ECG: the strap may take half a minute"

    async def _ask(self, client: BleakClient, request: bytes, what: str, granted: tuple[int, ...] = (0,)) -> Answer:
        await self._in_time(client.write_gatt_char(CONTROL, request, response=True), what)
        answer = await self._in_time(self._answer(request), what)
        if answer.status not in granted:
            asked = "was asked for" if request[0] == GET else "was asked"
            raise _RefusedError(
                f"the strap {asked} {what} and refuses: {answer.refusal} (code {answer.status}). Close other programs "
                "and phones that use it, take it off and on again."
            )
        return answer

    async def _answer(self, request: bytes) -> Answer:
        while True:
            try:
                answer = parse_answer(await self._answers.get())
            except ValueError as error:
                raise _LostError(str(error)) from error
            if (answer.operation, answer.kind) == (request[0], request[1]):
                return answer  # others are of a connection that broke

    async def _in_time(self, awaited: Coroutine[Any, Any, _T], what: str) -> _T:
        try:
            async with asyncio.timeout(self._radio.answer):
                return await awaited
        except TimeoutError:
            raise _LostError(f"the strap did not answer in {self._radio.answer:g} s, asked for {what}") from None

    async def _watch(self, client: BleakClient, gone: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        looked = loop.time()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(0.5, self._radio.silence / 4)):
                    await gone.wait()
                    raise _LostError("the connection broke")
            now = loop.time()
            silent, patience = now - self._heard, self._radio.silence if self._streaming else self._radio.first
            if silent > patience:
                raise _LostError(f"connected, but no ECG for {silent:.0f} s")
            if self._streaming:
                self._state = f"connected, but no ECG for {silent:.0f} s" if silent > patience / 3 else ""
            if now - self._refused_at > FORGIVEN:
                self._doubt = ""
            if now - looked > self._radio.battery:
                looked = now
                await self._look_at_battery(client)

    # -- the thread of the loop: what the strap says -----------------------------------------------------------------

    def _on_answer(self, _: object, value: bytearray) -> None:
        if value[:1] == b"\x0f":  # what was read, which BlueZ may report here as well
            return
        with contextlib.suppress(asyncio.QueueFull):
            self._answers.put_nowait(bytes(value))

    def _on_beats(self, _: object, value: bytearray) -> None:
        arrival = self._now() - self._delay
        try:
            beats = decode_beats(bytes(value))
        except ValueError as error:
            self._refuse(error)
            return
        if beats.contact is not None and beats.contact != self._contact:
            if self._contact is not None or not beats.contact:
                self._say("skin contact" if beats.contact else "no skin contact: wet the electrodes", arrival)
            self._contact = beats.contact
        times = np.array([*rr_times(arrival, beats.rr_ms), arrival])  # of the intervals, and of the heart rate
        times = np.maximum.accumulate(np.maximum(times, self._last_beat))
        self._last_beat = float(times[-1])
        self._put(Events(self._rr.key, times, (*(f"rr {ms:.1f} ms" for ms in beats.rr_ms), f"hr {beats.bpm} bpm")))

    def _on_data(self, _: object, value: bytearray) -> None:
        arrival = self._now()
        try:
            items = self._frames.take(bytes(value), arrival)
        except ValueError as error:
            self._refuse(error)
            return
        self._heard = asyncio.get_running_loop().time()
        self._give(items)
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if self._frames.holds:
            self._flush = asyncio.get_running_loop().call_later(
                self._radio.hold, lambda: self._give(self._frames.flush())
            )

    def _refuse(self, error: ValueError) -> None:
        self._refused += 1
        self._refused_at = asyncio.get_running_loop().time()
        self._doubt = (
            f"{self._refused} notifications of the strap were refused, the last was {error}: "
            "if there are more, try another Bluetooth adapter"
        )
        if self._refused == 1:
            self._say(f"refused {error}", self._now())  # samples that were in it are said to be lost in their turn

    def _give(self, items: Sequence[Item]) -> None:
        if items:
            self._streaming = True
            self._state = ""
        for item in items:
            self._put(item)

    def _say(self, text: str, time: float) -> None:
        self._put(Notice(self._ecg.key, time, text))

    def _put(self, item: Item) -> None:
        with self._arrived:
            if len(self._items) >= WAITING:
                oldest = self._items.popleft()
                if isinstance(oldest, Chunk):
                    self._dropped += len(oldest.times) + oldest.lost
            self._items.append(item)
            self._arrived.notify()


def firmware_warning(firmware: str, platform: str) -> str:
    """What is known against a strap's firmware on a platform (as ``sys.platform``), "" when nothing.

    >>> firmware_warning("4.0.4", "win32").partition(":")[0]
    'firmware 4.0.4 of the strap is known to disconnect from Windows (seen with 4.0.4, not with 3.0.56)'
    >>> firmware_warning("3.0.56", "win32"), firmware_warning("4.0.4", "linux")
    ('', '')
    """
    number = re.match(r"(\d{1,4})\.(\d{1,4})\.(\d{1,4})", firmware)
    if not number or platform != "win32" or tuple(map(int, number.groups())) < (4, 0, 4):
        return ""
    return (  # polar-ble-sdk, issue 774
        f"firmware {firmware} of the strap is known to disconnect from Windows (seen with 4.0.4, not with 3.0.56): "
        "if it does, use a strap with firmware 3, or Linux or macOS"
    )


class _Loop:
    """An asyncio loop in a thread of its own."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()
        self.stopped = False

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        pending = asyncio.all_tasks(self._loop)
        for task in pending:
            if not task.cancelling():  # else it is already leaving, and gives the strap free
                task.cancel()
        if pending:
            self._loop.run_until_complete(asyncio.wait(pending, timeout=10.0))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, _T], address: str, timeout: float) -> _T:
        """The result of ``work``; what Bluetooth raises becomes a DeviceError."""
        try:
            return self.submit(work).result(timeout)
        except TimeoutError as error:
            raise DeviceError(
                f"{address}: Bluetooth does not answer. Restart it, and the computer if need be."
            ) from error
        except Exception as error:  # also what a library below bleak raises
            raise DeviceError(f"{address}: {_in_words(error)}.") from error

    def stop(self, timeout: float = 5.0) -> None:
        """Cancel what runs, wait for it, end the thread. May be called twice."""
        if not self.stopped:
            self.stopped = True
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout)


def _in_words(error: BaseException) -> str:
    if isinstance(error, _LostError):
        return str(error)
    if isinstance(error, BleakBluetoothNotAvailableError):
        return f"no Bluetooth here: {_clean(str(error.args[0]))} Switch it on, or plug in an adapter"
    if isinstance(error, OSError):
        return (
            "no Bluetooth here: its service cannot be reached. Plug in an adapter and start Bluetooth (on Linux: BlueZ)"
        )
    return f"Bluetooth says: {_clean(str(error)) or type(error).__name__}"


async def _find(radio: Radio, wanted: str) -> list[BLEDevice]:
    """Every strap that fits, those that bear the very name or address alone when there are such."""

    def fits(strap: BLEDevice) -> bool:
        if _ADDRESS.fullmatch(wanted):
            return strap.address.casefold() == wanted.casefold()
        return _is_strap(strap) and wanted.casefold() in (strap.name or "").casefold()

    unique = _ADDRESS.fullmatch(wanted) is not None
    found = await _scan(radio, radio.scan, 0.0 if unique else radio.listen, fits)
    exact = [strap for strap in found if (strap.name or "").casefold() == wanted.casefold()]
    return exact or found


async def _scan(radio: Radio, longest: float, after: float, fits: Callable[[BLEDevice], bool]) -> list[BLEDevice]:
    """Devices that fit, for ``longest`` seconds at most, and for ``after`` more once there is one."""
    found: dict[str, BLEDevice] = {}
    first = asyncio.Event()

    def seen(strap: BLEDevice, advertisement: AdvertisementData) -> None:
        if advertisement.local_name and not strap.name:
            strap.name = advertisement.local_name
        if fits(strap):
            found[strap.address] = strap
            first.set()

    backend: dict[str, Any] = {} if radio.scanner is None else {"backend": radio.scanner}
    async with BleakScanner(seen, **backend):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest):
                await first.wait()
                await asyncio.sleep(after)
    return sorted(found.values(), key=lambda strap: (strap.name or "", strap.address))


def _is_strap(strap: BLEDevice) -> bool:
    return (strap.name or "").casefold().startswith("polar h")


def _call(strap: BLEDevice) -> str:
    """What finds the strap again: its name, its Bluetooth address where a name cannot stand in an address of ours."""
    name = strap.name or ""
    return name if name and name == _clean(name) and "?" not in name else strap.address


def _clean(text: str, limit: int = 120) -> str:
    """Text from outside as one printable line."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:limit]).strip()


def _parse(rest: str, address: str) -> tuple[str, float, float]:
    wanted, _, query = rest.partition("?")
    numbers = {"delay": 0.0, "delay_sd": 0.0}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in numbers:
            raise DeviceError(
                f"{address}: no option is called {name!r}. There are {' and '.join(numbers)}, in seconds."
            )
        try:
            numbers[name] = float(text)
        except ValueError:
            numbers[name] = math.nan
        if not 0.0 <= numbers[name] <= LONGEST_DELAY:
            raise DeviceError(f"{address}: {name} is {text!r}; it must be seconds, from 0 to {LONGEST_DELAY:g}.")
    return wanted.strip(), numbers["delay"], numbers["delay_sd"]
