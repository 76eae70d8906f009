namespace TicketFunctions.Hosting.AzureFunctions;

/// <summary>Starts the worker, unless a setting is wrong: that is said in a sentence, without a stack.</summary>
internal static class WorkerStart
{
    public static int Run(IHost host)
    {
        try
        {
            TicketFunctionsSetup.Validate(host.Services);
            host.Run();
            return 0;
        }
        catch (Exception e) when (TicketFunctionsSetup.FindSentences(e) is { } sentences)
        {
            foreach (var sentence in sentences)
            {
                Console.Error.WriteLine($"error: {sentence}");
            }

            return 2;
        }
    }
}
