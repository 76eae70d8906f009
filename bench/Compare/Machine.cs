using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace TicketFunctions.Compare;

/// <summary>What the kernel tells of processes. Linux only.</summary>
internal static class Machine
{
    /// <summary>USER_HZ, which is 100 on every Linux that .NET runs on.</summary>
    private const double TicksPerSecond = 100;

    /// <summary>CPU seconds of a process, its living descendants, and the children they have reaped.</summary>
    public static double CpuOfTree(int pid) => Tree(pid).Sum(process => process.Cpu + process.CpuOfReaped);

    /// <summary>CPU seconds of the children that this process has reaped: all that have ended.</summary>
    public static double CpuOfEnded() => Read(Environment.ProcessId)?.CpuOfReaped ?? 0;

    /// <summary>Resident and proportional memory of a process and its living descendants, in MB.</summary>
    public static (double Rss, double Pss) MemoryOfTree(int pid)
    {
        double rss = 0, pss = 0;
        foreach (var process in Tree(pid))
        {
            foreach (var line in ReadLines($"/proc/{process.Pid}/smaps_rollup"))
            {
                var kilobytes = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
                rss += kilobytes[0] == "Rss:" ? double.Parse(kilobytes[1], CultureInfo.InvariantCulture) / 1024 : 0;
                pss += kilobytes[0] == "Pss:" ? double.Parse(kilobytes[1], CultureInfo.InvariantCulture) / 1024 : 0;
            }
        }

        return (rss, pss);
    }

    /// <summary>The process that started one of Postgres's; null where that number is another process here, as with a server in a container.</summary>
    public static int? FindPostmaster(int backend) =>
        Read(backend) is { Name: "postgres" } child && Read(child.Parent) is { Name: "postgres" } postmaster ? postmaster.Pid : null;

    /// <summary>Whether some of a process's memory is in huge pages that were reserved for such use; null when we may not know.</summary>
    /// <remarks>https://www.kernel.org/doc/html/latest/admin-guide/mm/hugetlbpage.html</remarks>
    public static bool? UsesHugePages(int pid) => ReadLines($"/proc/{pid}/smaps_rollup") is { Length: > 0 } lines
        ? lines.Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries)).Any(words => words[0] is ("Shared_Hugetlb:" or "Private_Hugetlb:") && words[1] != "0")
        : null;

    public static int FindFreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    public static string? FindOnPath(string program) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Where(Path.IsPathRooted)
            .Select(folder => Path.Combine(folder, program)).FirstOrDefault(File.Exists);

    /// <summary>All its memory.</summary>
    public static double Gigabytes =>
        double.Parse(ReadLines("/proc/meminfo").FirstOrDefault()?.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1] ?? "0", CultureInfo.InvariantCulture) / 1024 / 1024;

    /// <summary>The processor's name, how many of it, and the kernel.</summary>
    public static string Describe()
    {
        var model = ReadLines("/proc/cpuinfo").FirstOrDefault(line => line.StartsWith("model name", StringComparison.Ordinal))?.Split(':')[1].Trim() ?? "unknown processor";
        return string.Create(CultureInfo.InvariantCulture,
            $"{Environment.ProcessorCount} × {model}, {Gigabytes:0} GB, Linux {Environment.OSVersion.Version}, .NET {Environment.Version}");
    }

    private static List<ProcessTimes> Tree(int root)
    {
        var all = Directory.EnumerateDirectories("/proc")
            .Select(folder => int.TryParse(Path.GetFileName(folder), CultureInfo.InvariantCulture, out var pid) ? Read(pid) : null)
            .OfType<ProcessTimes>().ToLookup(process => process.Parent);
        var tree = Read(root) is { } first ? new List<ProcessTimes> { first } : [];
        for (var i = 0; i < tree.Count; i++)
        {
            tree.AddRange(all[tree[i].Pid]);
        }

        return tree;
    }

    private static ProcessTimes? Read(int pid)
    {
        try
        {
            // The name, in brackets, may hold anything.
            var stat = File.ReadAllText($"/proc/{pid}/stat");
            var fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
            var name = stat[(stat.IndexOf('(') + 1)..stat.LastIndexOf(')')];
            return new ProcessTimes(pid, name, int.Parse(fields[1], CultureInfo.InvariantCulture), Seconds(11) + Seconds(12), Seconds(13) + Seconds(14));

            double Seconds(int field) => double.Parse(fields[field], CultureInfo.InvariantCulture) / TicksPerSecond;
        }
        catch (IOException)
        {
            return null;
        }
    }

    private static string[] ReadLines(string path)
    {
        try
        {
            return File.ReadAllLines(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }

    private sealed record ProcessTimes(int Pid, string Name, int Parent, double Cpu, double CpuOfReaped);
}

/// <summary>How the machine does right now: neighbours may slow it down by half, so each cell says what it was measured in.</summary>
/// <param name="StubPerSecond">Calls of the stub alone, by 32 clients.</param>
/// <param name="SyncMicroseconds">The median of writing 8 kB to the disk.</param>
internal sealed record Canary(double StubPerSecond, double SyncMicroseconds)
{
    public static double MeasureSync(string folder)
    {
        var path = Path.Combine(folder, "canary");
        try
        {
            using var file = File.OpenHandle(path, FileMode.Create, FileAccess.Write);
            var block = new byte[8192];
            var times = new double[40];
            for (var i = 0; i < times.Length; i++)
            {
                RandomAccess.Write(file, block, i % 16 * block.Length);
                var start = Stopwatch.GetTimestamp();
                RandomAccess.FlushToDisk(file);
                times[i] = Stopwatch.GetElapsedTime(start).TotalMicroseconds;
            }

            return Cell.Median(times);
        }
        finally
        {
            File.Delete(path);
        }
    }
}
