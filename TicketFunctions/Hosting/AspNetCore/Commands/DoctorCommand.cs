using System.CommandLine;
using Microsoft.Extensions.Options;
using TicketFunctions.Classification;
using TicketFunctions.Storage;

namespace TicketFunctions.Hosting.AspNetCore.Commands;

/// <summary>What a check found.</summary>
internal enum Verdict
{
    Ok,

    /// <summary>It works, and could be better or safer.</summary>
    Warn,

    /// <summary>It does not work.</summary>
    Fail,

    /// <summary>It could not be looked at.</summary>
    Skip,
}

/// <summary>Takes down what a check found: what was looked at, how it is, and what to do about it. No secret may stand there.</summary>
internal delegate void Report(Verdict verdict, string what, string text);

/// <summary><c>doctor</c>: checks settings, database and model from inside, and a deployment from outside.</summary>
internal static class DoctorCommand
{
    public static Command Create()
    {
        var url = new Option<Uri?>("--url")
        {
            Description = "Also check the service at this address, like https://<app>.azurewebsites.net. Without a configured database only this is checked, and the settings.",
            CustomParser = result =>
            {
                if (Uri.TryCreate(result.Tokens[0].Value, UriKind.Absolute, out var address)
                    && (address.Scheme == Uri.UriSchemeHttps || address.Scheme == Uri.UriSchemeHttp)
                    && address is { UserInfo: "", Query: "", Fragment: "" })
                {
                    return address;
                }

                result.AddError("--url is not an address; write it like https://<app>.azurewebsites.net, without a key.");
                return null;
            },
        };
        var key = new Option<string?>("--key") { Description = "The function key to show there; else Keys__Function of the settings." };
        var command = new Command(
            "doctor",
            "Check the settings, the database and the model, and with --url a deployment. Each line is ok, warn, fail or skip, with what to do. "
            + "Nothing is changed. Exit code 1 if anything failed.")
        {
            url, key,
        };
        command.Validators.Add(result =>
        {
            if (result.GetResult(key) is not null && result.GetResult(url) is null)
            {
                result.AddError("--key is for the service at --url; give both.");
            }
        });
        command.SetAction((parsed, cancellationToken) => CommandLine.Guarded(
            token => RunAsync(parsed.GetValue(url), parsed.GetValue(key), token), cancellationToken));
        return command;
    }

    private static async Task<int> RunAsync(Uri? url, string? key, CancellationToken cancellationToken)
    {
        var failed = false;
        using var host = await CommandServices.StartAsync(cancellationToken);
        var configuration = host.Services.GetRequiredService<IConfiguration>();
        await using var database = url is not null && TicketFunctionsSetup.FindConnectionString(configuration) is null
            ? null
            : await LocalDatabase.OpenAsync(host.Services, cancellationToken);
        if (database is null)
        {
            Report(Verdict.Skip, "database", "skipped: set ConnectionStrings__Tickets here as the service has it.");
        }
        else
        {
            if (database.IsEmbedded)
            {
                await host.Services.GetRequiredService<Migrations>().ApplyAsync(cancellationToken);
            }

            await new DatabaseCheckup(host.Services, url, key, Report).RunAsync(cancellationToken);
        }

        await CheckModelAsync(host.Services, Report, cancellationToken);
        CheckKeys(configuration, Report);
        if (url is not null)
        {
            await new DeploymentCheckup(host.Services, url, key ?? configuration["Keys:Function"]?.Trim(), Report).RunAsync(cancellationToken);
        }

        return failed ? CommandLine.Failure : CommandLine.Success;

        void Report(Verdict verdict, string what, string text)
        {
            failed |= verdict == Verdict.Fail;
            Console.WriteLine($"{verdict.ToString().ToLowerInvariant(),-4}  {what,-12}  {text.ReplaceLineEndings(" ")}");
        }
    }

    private static async Task CheckModelAsync(IServiceProvider services, Report report, CancellationToken cancellationToken)
    {
        const string What = "model";
        var options = services.GetRequiredService<IOptions<ModelOptions>>().Value;
        if (options.EffectiveProvider == "baseline")
        {
            report(Verdict.Warn, What, "No model is configured, so the embedded baseline labels. Set Model__Provider and its key for better labels.");
            return;
        }

        var offer = await services.GetRequiredService<ModelCatalog>().ListAsync(cancellationToken);
        foreach (var sentence in offer.Faults.Select(fault => fault.Reason).Concat(offer.Missing))
        {
            report(Verdict.Fail, What, sentence);
        }

        if (offer.Faults.Count + offer.Missing.Count == 0)
        {
            report(Verdict.Ok, What, $"{options.Describe()}. The server takes the key and knows the name.");
        }
    }

    private static void CheckKeys(IConfiguration configuration, Report report)
    {
        const string What = "keys";
        var keys = configuration.GetSection("Keys").Get<KeyOptions>() ?? new KeyOptions();
        foreach (var name in new[] { "urls", "http_ports", "https_ports" })
        {
            configuration[name] ??= configuration[$"ASPNETCORE_{name}"];
        }

        if (FunctionKeys.FindError(configuration, keys) is { } error)
        {
            report(Verdict.Fail, What, error);
        }
        else if (string.IsNullOrWhiteSpace(keys.Function) && !string.IsNullOrWhiteSpace(keys.Admin))
        {
            report(Verdict.Warn, What, "Keys__Admin is set and Keys__Function is not, so every caller needs the admin key; set Keys__Function.");
        }
        else if (string.IsNullOrWhiteSpace(keys.Function))
        {
            report(Verdict.Ok, What, "None: the plain host serves this machine only. In Azure the Functions host has its own.");
        }
        else if (keys.Function == keys.Admin)
        {
            report(Verdict.Warn, What, "Keys__Function and Keys__Admin are the same, so every caller may do everything; make them differ.");
        }
        else
        {
            report(Verdict.Ok, What, string.IsNullOrWhiteSpace(keys.Admin) ? "Keys__Function is set; without Keys__Admin nobody fires the sweep by a request." : "Keys__Function and Keys__Admin are set.");
        }
    }
}
