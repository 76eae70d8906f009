using System.Buffers;
using System.Globalization;
using System.Text;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Logging.Console;

namespace TicketFunctions.Hosting.AspNetCore;

/// <summary>
/// The framework's console log with a writer that nobody waits for: its own holds up whoever logs when it cannot keep up, and
/// writes each line by itself. What comes too fast is lost and counted, errors last.
/// </summary>
[ProviderAlias("Console")]
public sealed class ConsoleLog : ILoggerProvider, ISupportExternalScope
{
    /// <summary>Characters that may wait: some thousand lines.</summary>
    public const int MaxWaiting = 1024 * 1024;

    /// <summary>How long lines are gathered for one write. Errors do not wait.</summary>
    private static readonly TimeSpan Gathering = TimeSpan.FromMilliseconds(20);

    /// <summary>The end of the process does not wait longer for a reader that has stopped reading.</summary>
    private static readonly TimeSpan LastWrite = TimeSpan.FromSeconds(2);

    [ThreadStatic]
    private static StringWriter? t_line;

    private readonly ConsoleFormatter _formatter;
    private readonly StreamWriter _output;
    private readonly Thread _writer;
    private readonly object _gate = new();
    private ArrayBufferWriter<char> _waiting = new();
    private ArrayBufferWriter<char> _spare = new();
    private IExternalScopeProvider _scopes = new LoggerExternalScopeProvider();
    private long _lost;
    private bool _isUrgent;
    private bool _isClosed;
    private bool _isDone;

    /// <summary>Writes to standard error: standard output belongs to what commands print.</summary>
    public ConsoleLog(IEnumerable<ConsoleFormatter> formatters)
        : this(formatters, Console.OpenStandardError())
    {
    }

    public ConsoleLog(IEnumerable<ConsoleFormatter> formatters, Stream output)
    {
        _formatter = formatters.First(formatter => formatter.Name == ConsoleFormatterNames.Simple);
        _output = new StreamWriter(output, new UTF8Encoding(encoderShouldEmitUTF8Identifier: false), bufferSize: 16 * 1024);
        _writer = new Thread(WriteUntilClosed) { IsBackground = true, Name = nameof(ConsoleLog) };
        _writer.Start();
        AppDomain.CurrentDomain.ProcessExit += OnExit;
    }

    public ILogger CreateLogger(string categoryName) => new Logger(this, categoryName);

    public void SetScopeProvider(IExternalScopeProvider scopeProvider) => _scopes = scopeProvider;

    /// <summary>Writes what waits. What is logged afterwards is written at once.</summary>
    public void Dispose()
    {
        AppDomain.CurrentDomain.ProcessExit -= OnExit;
        lock (_gate)
        {
            _isClosed = true;
            Monitor.Pulse(_gate);
        }

        _writer.Join(LastWrite);
    }

    private void OnExit(object? sender, EventArgs e) => Dispose();

    private void Add(StringBuilder line, LogLevel level)
    {
        lock (_gate)
        {
            if (_waiting.WrittenCount > (level < LogLevel.Error ? MaxWaiting : 4 * MaxWaiting))
            {
                _lost++;
                return;
            }

            _isUrgent |= level >= LogLevel.Error;
            if (_isUrgent || _waiting.WrittenCount == 0)
            {
                Monitor.Pulse(_gate);
            }

            foreach (var part in line.GetChunks())
            {
                _waiting.Write(part.Span);
            }

            if (!_isDone)
            {
                return;
            }
        }

        WriteWaiting();
    }

    private void WriteUntilClosed()
    {
        while (true)
        {
            lock (_gate)
            {
                while (_waiting.WrittenCount == 0)
                {
                    if (_isClosed)
                    {
                        _isDone = true;
                        return;
                    }

                    Monitor.Wait(_gate);
                }

                if (!_isUrgent && !_isClosed)
                {
                    Monitor.Wait(_gate, Gathering);
                }
            }

            WriteWaiting();
        }
    }

    private void WriteWaiting()
    {
        lock (_output)
        {
            long lost;
            lock (_gate)
            {
                (_waiting, _spare) = (_spare, _waiting);
                (lost, _lost) = (_lost, 0);
                _isUrgent = false;
            }

            try
            {
                _output.Write(_spare.WrittenSpan);
                if (lost > 0)
                {
                    _output.WriteLine(string.Create(
                        CultureInfo.InvariantCulture,
                        $"{DateTime.Now:HH:mm:ss} warn: {typeof(ConsoleLog).FullName}[0] {lost} lines came faster than they could be written, and are lost"));
                }

                _output.Flush();
            }
            catch (IOException)
            {
                // Nobody reads it any more; the service goes on.
            }

            _spare.ResetWrittenCount();
        }
    }

    private sealed class Logger(ConsoleLog log, string category) : ILogger
    {
        public bool IsEnabled(LogLevel logLevel) => logLevel != LogLevel.None;

        public IDisposable BeginScope<TState>(TState state)
            where TState : notnull => log._scopes.Push(state);

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            var line = t_line ??= new StringWriter(CultureInfo.InvariantCulture);
            var text = line.GetStringBuilder();
            try
            {
                log._formatter.Write(new LogEntry<TState>(logLevel, category, eventId, state, exception, formatter), log._scopes, line);
                log.Add(text, logLevel);
            }
            finally
            {
                text.Clear();
                text.Capacity = Math.Min(text.Capacity, 4096);
            }
        }
    }
}
