// What libxdf makes of a file: a line for each stream (its name, how many samples, how many channels) and one for each
// sample (stamp on the recorder's clock, first value). libxdf puts stamps on that clock while it loads.

#include <xdf.h>

#include <cstdio>

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    Xdf file;
    if (file.load_xdf(argv[1]) != 0)
        return 1;
    for (auto &stream : file.streams)
    {
        if (stream.time_series.empty())
            continue;
        const auto &values = stream.time_series.front();
        std::printf("stream %zu %zu %s\n", stream.time_stamps.size(), stream.time_series.size(), stream.info.name.c_str());
        for (size_t i = 0; i < stream.time_stamps.size(); ++i)
            std::printf("%.17g %.9g\n", stream.time_stamps[i], i < values.size() ? double(values[i]) : -1.0);
    }
    return 0;
}
