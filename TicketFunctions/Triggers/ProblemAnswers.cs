using TicketFunctions.Storage;

namespace TicketFunctions.Triggers;

/// <summary>Turns what nobody caught, and what nobody is there for, into an answer. Each host puts it around its functions.</summary>
public sealed partial class ProblemAnswers(ILogger<ProblemAnswers> logger)
{
    public async Task RunAsync(HttpContext context, RequestDelegate next)
    {
        var response = context.Response;
        try
        {
            await next(context);
            if (response.StatusCode is StatusCodes.Status404NotFound or StatusCodes.Status405MethodNotAllowed && !response.HasStarted)
            {
                // Routing found no function and has nothing to say about it.
                var problem = response.StatusCode == StatusCodes.Status404NotFound ? Problem.NotFound() : Problem.MethodNotAllowed();
                await problem.ExecuteAsync(context);
            }
        }
        catch (Exception) when (context.RequestAborted.IsCancellationRequested)
        {
            // The client has gone: there is nobody to answer.
        }
        catch (Exception e) when (!response.HasStarted)
        {
            await Explain(e, Problem.TraceIdOf(context)).ExecuteAsync(context);
        }
    }

    /// <summary>Logs what nobody caught, where an operator should know of it, and says how to answer it.</summary>
    public Problem Explain(Exception exception, string traceId)
    {
        var problem = Problem.From(exception);
        if (problem.Status == StatusCodes.Status500InternalServerError)
        {
            Log.Defect(logger, traceId, StorageFaults.Describe(exception));
        }
        else if (StorageFaults.IsUnavailable(exception))
        {
            Log.StorageUnavailable(logger, exception.GetType().Name, (exception as Npgsql.PostgresException)?.SqlState);
        }

        return problem;
    }

    private static partial class Log
    {
        [LoggerMessage(Level = LogLevel.Error, Message = "Request {TraceId} failed by a defect: {Details}")]
        public static partial void Defect(ILogger logger, string traceId, string details);

        [LoggerMessage(Level = LogLevel.Warning, Message = "The database is unavailable ({Exception} {SqlState})")]
        public static partial void StorageUnavailable(ILogger logger, string exception, string? sqlState);
    }
}
