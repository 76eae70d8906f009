using System.Globalization;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.WebUtilities;
using Microsoft.Extensions.Options;
using Npgsql;
using TicketFunctions.Storage;
using TicketFunctions.Triggers;

namespace TicketFunctions.Hosting.AspNetCore.Commands;

/// <summary>Checks the configured database. Every check runs, whatever the others found; without a connection they are skipped.</summary>
/// <param name="services">The services.</param>
/// <param name="url">Where the service is, or null: what the database's requests should be sent to.</param>
/// <param name="key">A key that the service takes, or null.</param>
/// <param name="report">Gets what was found.</param>
internal sealed class DatabaseCheckup(IServiceProvider services, Uri? url, string? key, Report report)
{
    /// <summary>The oldest that the tests have run on.</summary>
    private const int OldestVersion = 15;

    /// <summary>Connections to find out with how a pooler shares its sessions; few of those a small project has.</summary>
    private const int ProbingConnections = 4;

    /// <summary>Sessions of a login in session mode, on Supabase's smallest projects.</summary>
    private const int SmallestSessionPool = 15;

    private static readonly string[] NeededSecrets = ["ticket_functions_url", "ticket_functions_webhook_secret"];

    private const string SignedFunction = "public.ticket_webhook";
    private const string DashboardFunction = "supabase_functions.http_request";

    private readonly IConfiguration _configuration = services.GetRequiredService<IConfiguration>();
    private readonly Diagnosis _diagnosis = services.GetRequiredService<Diagnosis>();
    private readonly StorageOptions _storage = services.GetRequiredService<IOptions<StorageOptions>>().Value;
    private readonly WebhookOptions _webhooks = services.GetRequiredService<IOptions<WebhookOptions>>().Value;

    /// <summary>With the password, which is not to be shown.</summary>
    private readonly NpgsqlConnectionStringBuilder _settings =
        ConnectionStrings.Parse(TicketFunctionsSetup.FindConnectionString(services.GetRequiredService<IConfiguration>())!);

    private string Server => $"{_settings.Host}:{_settings.Port}";

    public async Task RunAsync(CancellationToken cancellationToken)
    {
        (string What, Func<CancellationToken, Task> Check)[] checks =
        [
            ("role", CheckRoleAsync),
            ("grants", CheckGrantsAsync),
            ("row security", CheckRowSecurityAsync),
            ("migrations", CheckMigrationsAsync),
            ("writes", CheckWritesAsync),
            ("realtime", CheckRealtimeAsync),
            ("webhook", CheckWebhooksAsync),
            ("pooler", CheckPoolerAsync),
            ("connections", CheckConnectionsAsync),
            ("clock", CheckClockAsync),
        ];
        CheckTls();
        if (!await CheckConnectionAsync(cancellationToken))
        {
            foreach (var what in checks.Select(check => check.What).Prepend("version"))
            {
                report(Verdict.Skip, what, "skipped: no connection.");
            }

            return;
        }

        foreach (var (what, check) in checks)
        {
            try
            {
                await check(cancellationToken);
            }
            catch (Exception e) when (StorageFaults.Find(e) is not null)
            {
                report(Verdict.Fail, what, Explain(e));
            }
        }
    }

    private async Task<bool> CheckConnectionAsync(CancellationToken cancellationToken)
    {
        SessionState session;
        try
        {
            session = await _diagnosis.ReadSessionAsync(cancellationToken);
        }
        catch (Exception e) when (StorageFaults.Find(e) is not null)
        {
            report(Verdict.Fail, "connection", ExplainNoConnection(e));
            return false;
        }

        report(
            Verdict.Ok,
            "connection",
            $"{session.Database} on {Server} as {session.Login}, by {ConnectionStrings.Describe(ConnectionStrings.FindAddress(_settings))}.");
        var isTested = session.VersionNumber / 10_000 >= OldestVersion;
        report(
            isTested ? Verdict.Ok : Verdict.Warn,
            "version",
            $"Postgres {session.Version}{(isTested ? "." : $": not tested; upgrade to {OldestVersion} or newer.")}");
        return true;
    }

    private void CheckTls()
    {
        const string What = "tls";
        const string Mend = "add SSL Mode=VerifyFull;Root Certificate=<the project's certificate> to the connection string (docs/supabase.md).";
        if (_settings.SslMode < SslMode.Require)
        {
            // Whether it was encrypted this time does not matter: whoever is in between may refuse that.
            var isHere = ConnectionStrings.IsLoopback(_settings);
            report(
                isHere ? Verdict.Ok : Verdict.Fail,
                What,
                isHere ? "Not asked for, on this machine." : $"SSL Mode={_settings.SslMode} lets tickets travel in the clear; " + Mend);
        }
        else if (_settings.SslMode == SslMode.VerifyFull)
        {
            report(Verdict.Ok, What, "Encrypted, and the server's certificate and name are checked.");
        }
        else
        {
            report(Verdict.Warn, What, $"Encrypted, but with SSL Mode={_settings.SslMode} anybody in between may pose as the server; " + Mend);
        }
    }

    private async Task CheckRoleAsync(CancellationToken cancellationToken)
    {
        const string What = "role";
        const string Mend = "Set Storage__Role=ticket_functions, or log in as a member of it (docs/supabase.md).";
        if (await _diagnosis.FindRoleAsync(_storage.Role, cancellationToken) is not { } role)
        {
            report(Verdict.Fail, What, $"There is no role {_storage.Role}, which Storage__Role names. `migrate` makes ticket_functions if the login may create roles.");
        }
        else if (!role.IsGranted)
        {
            report(Verdict.Fail, What, $"The login may not take the role {role.Name} of Storage__Role. Run as an administrator: grant {role.Name} to {Quote(_settings.Username)};");
        }
        else if (role.IsSuperuser || role.OwnsTickets || role.BypassesRowSecurity)
        {
            var why = role.IsSuperuser ? "is a superuser" : role.OwnsTickets ? "owns the tables" : "passes row level security";
            report(Verdict.Warn, What, $"The service works as {role.Name}, which {why} and may do more than it needs. {Mend}");
        }
        else
        {
            report(Verdict.Ok, What, $"The service works as {role.Name}{(_storage.Role is null ? "" : ", which the login takes for each statement")}.");
        }
    }

    private async Task CheckGrantsAsync(CancellationToken cancellationToken)
    {
        const string What = "grants";
        if (await _diagnosis.FindRoleAsync(_storage.Role, cancellationToken) is null)
        {
            report(Verdict.Skip, What, "skipped: there is no such role.");
            return;
        }

        var tables = await _diagnosis.FindMissingTablesAsync(cancellationToken);
        var grants = await _diagnosis.FindMissingGrantsAsync(_storage.Role, cancellationToken);
        var policies = await _diagnosis.FindPolicyGapsAsync(_storage.Role, cancellationToken);
        if (tables.Count > 0)
        {
            report(Verdict.Fail, What, $"There is no {string.Join(", ", tables.Select(table => $"public.{table}"))} to have rights on. Run `migrate`; where that finds nothing to do, restore what was dropped since.");
        }

        if (grants.Count > 0)
        {
            report(Verdict.Fail, What, $"Rights are missing. Run as the tables' owner: {string.Join(' ', grants)}");
        }

        if (ListGaps(isPartial: false) is { Length: > 0 } missing)
        {
            report(Verdict.Fail, What, $"No policy lets the service do this: {missing}. Create it as in 20261120090300_access.sql, or work as ticket_functions.");
        }

        if (ListGaps(isPartial: true) is { Length: > 0 } partial)
        {
            report(Verdict.Warn, What, $"Policies let the service do this with some rows only, and it never hears of the others: {partial}. Unless you mean it, take their conditions away.");
        }

        if (tables.Count + grants.Count + policies.Count == 0)
        {
            report(Verdict.Ok, What, "The service may do all that it does.");
        }

        string ListGaps(bool isPartial) => string.Join(", ", policies.Where(gap => gap.IsPartial == isPartial).Select(gap => gap.Action));
    }

    private async Task CheckRowSecurityAsync(CancellationToken cancellationToken)
    {
        const string What = "row security";
        var open = await _diagnosis.FindOpenTablesAsync(cancellationToken);
        var anybodys = await _diagnosis.FindTablesOfAnybodyAsync(cancellationToken);
        if (open.Count > 0)
        {
            report(Verdict.Fail, What, $"Off: whoever has a grant sees all. Run: {string.Join(' ', open.Select(table => $"alter table public.{table} enable row level security;"))}");
        }

        if (anybodys.Count > 0)
        {
            report(Verdict.Warn, What, $"anon, which is everybody who has the public key, has grants that the migrations revoked. Unless you mean it, run: revoke all on {string.Join(", ", anybodys.Select(table => $"public.{table}"))} from anon;");
        }

        if (open.Count + anybodys.Count == 0)
        {
            report(Verdict.Ok, What, "Off for no table of the service, and nobody who has not signed in has a grant.");
        }
    }

    private async Task CheckMigrationsAsync(CancellationToken cancellationToken)
    {
        const string What = "migrations";
        var migrations = services.GetRequiredService<Migrations>();
        IReadOnlyList<Migration> missing;
        IReadOnlyList<string> newer;
        try
        {
            missing = await migrations.FindMissingAsync(cancellationToken);
            newer = missing.Count == Migrations.All.Count ? [] : await migrations.FindNewerAsync(cancellationToken);
        }
        catch (PostgresException e) when (e.SqlState == PostgresErrorCodes.InsufficientPrivilege)
        {
            report(Verdict.Warn, What, "This login may not read their history (supabase_migrations). Run `doctor` with the owner's login to compare them.");
            return;
        }

        if (missing.Count > 0)
        {
            report(Verdict.Fail, What, $"Missing: {string.Join(", ", missing.Select(migration => $"{migration.Version}_{migration.Name}"))}. Run `migrate` with the owner's login, or `supabase db push --workdir infra`.");
        }
        else if (newer.Count > 0)
        {
            report(Verdict.Warn, What, $"The history has newer ones that this version does not know: {string.Join(", ", newer)}. If they are not your own, deploy the version they belong to.");
        }
        else
        {
            report(Verdict.Ok, What, $"All {Migrations.All.Count} are applied.");
        }
    }

    private async Task CheckWritesAsync(CancellationToken cancellationToken)
    {
        await services.GetRequiredService<TicketStore>().WriteHeartbeatAsync(cancellationToken);
        report(Verdict.Ok, "writes", "The database takes writes.");
    }

    private async Task CheckRealtimeAsync(CancellationToken cancellationToken)
    {
        const string What = "realtime";
        switch (await _diagnosis.ReadPublicationAsync(cancellationToken))
        {
            case { HasTickets: true }:
                report(Verdict.Ok, What, "Dashboards hear of tickets.");
                break;
            case { Exists: true }:
                report(Verdict.Warn, What, "Dashboards hear nothing of tickets. Run: alter publication supabase_realtime add table public.tickets;");
                break;
            default:
                report(Verdict.Ok, What, "There is no publication supabase_realtime, so nobody listens.");
                break;
        }
    }

    private async Task CheckWebhooksAsync(CancellationToken cancellationToken)
    {
        var findings = new List<(Verdict Verdict, string Text)>();
        var means = await _diagnosis.ReadWebhookMeansAsync(cancellationToken);
        var triggers = await _diagnosis.FindWebhookTriggersAsync(cancellationToken);
        var secrets = means.MayReadVault ? await _diagnosis.ReadWebhookSecretsAsync(cancellationToken) : new Dictionary<string, string>();
        var signed = triggers.Where(trigger => trigger.Function == SignedFunction).ToList();
        var dashboards = triggers.Where(trigger => trigger.Function == DashboardFunction && IsForUs(ReadArguments(trigger)[0])).ToList();
        var others = triggers.Except(signed).Except(dashboards).ToList();
        var signs = signed.Count > 0 && (secrets.Count > 0 || (means.HasVault && !means.MayReadVault));
        if (signs)
        {
            findings.AddRange(JudgeSigning(means, secrets));
        }

        findings.AddRange(dashboards.SelectMany(JudgeDashboardWebhook));
        var senders = signs ? [.. signed, .. dashboards] : dashboards;
        findings.AddRange(JudgeEvents(senders));
        if (senders.Count == 0)
        {
            findings.Add(others.Count > 0
                ? (Verdict.Warn, $"{ListNames(others)} send requests elsewhere, or by functions of your own that are not read here. Unless one of them posts to /process-ticket, each ticket waits for the sweep (docs/supabase.md).")
                : means.HasNet || means.HasVault || HasSecret
                ? (Verdict.Warn, "No trigger sends tickets" + (HasSecret ? ", though Webhooks__Secret is set" : "")
                    + ": each waits for the sweep. Store the three secrets of the signed webhook in Vault, or add a webhook in the dashboard (docs/supabase.md).")
                : (Verdict.Ok, "None: this database has no pg_net. Clients post their tickets, or the sweep finds them."));
        }
        else if (findings.Count == 0)
        {
            findings.Add((Verdict.Ok, $"{ListNames(senders)} tell of new tickets."));
        }

        foreach (var (verdict, text) in findings)
        {
            report(verdict, "webhook", text);
        }

        static string ListNames(IEnumerable<WebhookTrigger> triggers) => string.Join(" and ", triggers.Select(trigger => trigger.Name));
    }

    /// <summary>Of a webhook of the dashboard: its address, method, headers, parameters and time-out.</summary>
    private static string[] ReadArguments(WebhookTrigger trigger) => Encoding.UTF8.GetString(trigger.Arguments).Split('\0');

    /// <summary>A team's other webhooks on its tickets are its own affair.</summary>
    private bool IsForUs(string text) =>
        !Uri.TryCreate(text, UriKind.Absolute, out var address)
        || address.AbsolutePath.EndsWith("/process-ticket", StringComparison.OrdinalIgnoreCase)
        || address.Authority == url?.Authority;

    private bool HasSecret => !string.IsNullOrWhiteSpace(_webhooks.Secret);

    private static IEnumerable<(Verdict, string)> JudgeEvents(List<WebhookTrigger> triggers)
    {
        foreach (var trigger in triggers)
        {
            if (!trigger.IsEnabled)
            {
                yield return (Verdict.Warn, $"{trigger.Name} is disabled. Run: alter table public.tickets enable trigger {Quote(trigger.Name)};");
            }

            if (trigger is { OnUpdate: true, Columns: not ["description"] })
            {
                yield return (Verdict.Warn, $"{trigger.Name} fires on every UPDATE, so also on the labels the service writes: a request for each, and a loop if its receiver writes too. Keep INSERT only, or `update of description`.");
            }
        }

        if (triggers.Count > 0 && !triggers.Any(trigger => trigger is { IsEnabled: true, OnInsert: true }))
        {
            yield return (Verdict.Warn, "No enabled trigger fires on INSERT: new tickets wait for the sweep.");
        }
    }

    private IEnumerable<(Verdict, string)> JudgeSigning(WebhookMeans means, IReadOnlyDictionary<string, string> secrets)
    {
        if (!means.HasNet)
        {
            yield return (Verdict.Fail, "pg_net is missing, so the signed triggers send nothing. Run: create extension pg_net;");
        }

        if (!means.MayReadVault)
        {
            yield return (Verdict.Warn, "This login may not read Vault. Run `doctor` with the owner's login to compare its secrets.");
            yield break;
        }

        foreach (var name in NeededSecrets.Where(name => !secrets.ContainsKey(name)))
        {
            yield return (Verdict.Fail, $"Vault has no secret {name}, so the signed triggers send nothing. Run: select vault.create_secret('<its value>', '{name}');");
        }

        if (secrets.TryGetValue("ticket_functions_url", out var address))
        {
            foreach (var finding in JudgeAddress("ticket_functions_url in Vault", address))
            {
                yield return finding;
            }
        }

        if (secrets.TryGetValue("ticket_functions_webhook_secret", out var secret))
        {
            var prefixed = secret.StartsWith("whsec_", StringComparison.Ordinal) ? secret : $"whsec_{secret}";
            if (!HasSecret)
            {
                yield return (Verdict.Warn, "The triggers sign and nobody checks it: set Webhooks__Secret to what ticket_functions_webhook_secret in Vault is.");
            }
            else if (!services.GetRequiredService<WebhookSignatures>().Knows(prefixed))
            {
                yield return (Verdict.Fail, "ticket_functions_webhook_secret in Vault is not Webhooks__Secret: each webhook gets 401. Run vault.update_secret, or mend the setting.");
            }
        }

        foreach (var finding in JudgeKey("ticket_functions_key in Vault", secrets.GetValueOrDefault("ticket_functions_key"), address))
        {
            yield return finding;
        }
    }

    private IEnumerable<(Verdict, string)> JudgeDashboardWebhook(WebhookTrigger trigger)
    {
        var arguments = ReadArguments(trigger);
        if (HasSecret)
        {
            yield return (Verdict.Fail, $"{trigger.Name} does not sign, and with Webhooks__Secret each of its requests gets 401. Drop it in favour of the signed triggers, or unset Webhooks__Secret.");
        }

        if (arguments.ElementAtOrDefault(1) != "POST")
        {
            yield return (Verdict.Fail, $"{trigger.Name} does not send POST, and the service takes nothing else. Create it anew with POST.");
        }

        foreach (var finding in JudgeAddress($"The address of {trigger.Name}", arguments[0]))
        {
            yield return finding;
        }

        foreach (var finding in JudgeKey($"The header x-functions-key of {trigger.Name}", ReadKey(arguments), arguments[0]))
        {
            yield return finding;
        }

        static string? ReadKey(string[] arguments)
        {
            try
            {
                using var headers = JsonDocument.Parse(arguments.ElementAtOrDefault(2) ?? "");
                return headers.RootElement.EnumerateObject()
                    .FirstOrDefault(header => header.Name.Equals("x-functions-key", StringComparison.OrdinalIgnoreCase)).Value is { ValueKind: JsonValueKind.String } value
                    ? value.GetString()
                    : null;
            }
            catch (Exception e) when (e is JsonException or InvalidOperationException)
            {
                return null;
            }
        }
    }

    private IEnumerable<(Verdict, string)> JudgeAddress(string what, string text)
    {
        if (!Uri.TryCreate(text, UriKind.Absolute, out var address) || (address.Scheme != Uri.UriSchemeHttps && address.Scheme != Uri.UriSchemeHttp))
        {
            yield return (Verdict.Fail, $"{what} is no address; write it like https://<app>.azurewebsites.net/process-ticket.");
            yield break;
        }

        // Not all of it: a key may stand in the query.
        var shown = address.GetComponents(UriComponents.SchemeAndServer | UriComponents.Path, UriFormat.UriEscaped);
        if (!address.AbsolutePath.Equals("/process-ticket", StringComparison.OrdinalIgnoreCase))
        {
            yield return (Verdict.Warn, $"{what} is {shown}, whose path is not /process-ticket.");
        }

        if (address.IsLoopback)
        {
            yield return (Verdict.Warn, $"{what} is {shown}, the database's own machine; from elsewhere the service is not reached so.");
        }
        else if (address.Scheme == Uri.UriSchemeHttp)
        {
            yield return (Verdict.Warn, $"{what} is {shown}: the key travels in the clear. Use https.");
        }

        if (url is { IsLoopback: false } && address.Authority != url.Authority)
        {
            yield return (Verdict.Warn, $"{what} is {shown}, and not the service at {url.Authority}.");
        }
    }

    /// <param name="what">Where the key should stand.</param>
    /// <param name="shown">What stands there. If nothing does, <c>?code=</c> of the address counts, as in the Functions host.</param>
    /// <param name="address">The address it is sent to.</param>
    private IEnumerable<(Verdict, string)> JudgeKey(string what, string? shown, string? address)
    {
        if (shown is null && Uri.TryCreate(address, UriKind.Absolute, out var target)
            && QueryHelpers.ParseQuery(target.Query).TryGetValue("code", out var code))
        {
            (what, shown) = ($"{what} is not there, and the ?code= that stands in for it", code);
        }

        string?[] keys = [_configuration["Keys:Function"]?.Trim(), key];
        var known = keys.Where(text => !string.IsNullOrWhiteSpace(text)).ToList();
        if (string.IsNullOrWhiteSpace(shown))
        {
            // In Azure the Functions host has the keys, and here nobody knows them.
            yield return (known.Count > 0 ? Verdict.Fail : Verdict.Warn, $"{what} is missing: a service with keys answers 401.");
        }
        else if (known.Count > 0 && !known.Contains(shown))
        {
            yield return (
                string.IsNullOrWhiteSpace(_configuration["Keys:Function"]) ? Verdict.Warn : Verdict.Fail,
                $"{what} is not the key known here: the service may answer 401.");
        }
    }

    private async Task CheckPoolerAsync(CancellationToken cancellationToken)
    {
        const string What = "pooler";
        var isShared = ConnectionStrings.FindAddress(_settings) == DatabaseAddress.TransactionPooler;
        if (_settings.MaxPoolSize > 1)
        {
            isShared |= await _diagnosis.SharesSessionsAsync(Math.Min(ProbingConnections, _settings.MaxPoolSize), cancellationToken);
        }

        else if (!isShared)
        {
            report(Verdict.Skip, What, "skipped: with Maximum Pool Size=1 it does not show whether sessions are shared.");
            return;
        }

        var mode = isShared ? "Sessions are shared (transaction mode)" : "Sessions are kept (no pooler, or session mode)";
        if (isShared && _settings.MaxAutoPrepare > 0)
        {
            report(Verdict.Fail, What, $"{mode}, and Max Auto Prepare={_settings.MaxAutoPrepare} prepares statements that the next session does not have. Set Max Auto Prepare=0.");
        }
        else if (isShared && !_settings.NoResetOnClose)
        {
            report(Verdict.Warn, What, $"{mode}, and connections are reset in whichever session that meets. Set No Reset On Close=true; ports 6543 and 6432 have it by themselves.");
        }
        else
        {
            report(Verdict.Ok, What, $"{mode}, and the settings agree.");
        }
    }

    private async Task CheckConnectionsAsync(CancellationToken cancellationToken)
    {
        const string What = "connections";
        var (limit, used) = await _diagnosis.ReadConnectionLimitsAsync(cancellationToken);
        var ours = string.Create(CultureInfo.InvariantCulture, $"Maximum Pool Size={_settings.MaxPoolSize} for each process");
        var theirs = string.Create(CultureInfo.InvariantCulture, $"the server takes {limit}, {used} are in use");
        switch (ConnectionStrings.FindAddress(_settings))
        {
            case DatabaseAddress.SessionPooler when _settings.MaxPoolSize > SmallestSessionPool:
                report(Verdict.Warn, What, $"{ours}, and in session mode a small project's pooler has {SmallestSessionPool} for all. Lower it, or use port 6543.");
                break;
            case DatabaseAddress.Direct when _settings.MaxPoolSize > limit:
                report(Verdict.Fail, What, $"{ours}, and {theirs}. Set Maximum Pool Size to a part of that.");
                break;
            case DatabaseAddress.Direct when _settings.MaxPoolSize * 2 > limit:
                report(Verdict.Warn, What, $"{ours}, and {theirs}: two processes use it up. Lower Maximum Pool Size, or use a pooler.");
                break;
            default:
                report(Verdict.Ok, What, $"{ours}; {theirs}.");
                break;
        }
    }

    private async Task CheckClockAsync(CancellationToken cancellationToken)
    {
        var time = services.GetRequiredService<TimeProvider>();
        var askedAt = time.GetUtcNow();
        var read = await _diagnosis.ReadClockAsync(cancellationToken);
        ClockCheck.Report(report, "database's clock", read, askedAt, time.GetUtcNow());
    }

    private string ExplainNoConnection(Exception exception)
    {
        var isSharedPooler = _settings.Host!.EndsWith(".pooler.supabase.com", StringComparison.OrdinalIgnoreCase);
        var isSupabaseServer = _settings.Host.EndsWith(".supabase.co", StringComparison.OrdinalIgnoreCase);
        return exception switch
        {
            PostgresException { SqlState: PostgresErrorCodes.InvalidPassword or PostgresErrorCodes.InvalidAuthorizationSpecification } =>
                $"{Server} does not take the login {_settings.Username}. Check the password"
                + (isSharedPooler ? "; the shared pooler knows postgres.<ref> only: use that, with Storage__Role for fewer rights." : ", in a URI percent-encoded."),
            PostgresException { SqlState: PostgresErrorCodes.InvalidCatalogName } => $"{Server} has no database {_settings.Database}; Supabase's is named postgres.",
            PostgresException when isSharedPooler => $"{Explain(exception)} On the shared pooler the user is postgres.<ref> and the host that of the project's region.",
            NpgsqlException { InnerException: AuthenticationException } =>
                $"The certificate of {Server} is not trusted. Root Certificate must be the file downloaded from the project's database settings, and the host's name the one in it.",
            NpgsqlException { InnerException: SocketException } when isSupabaseServer =>
                $"{Server} cannot be reached. The direct address has IPv6 only, unless the project bought IPv4; use the pooler's address, or check that the project is not paused.",
            NpgsqlException { InnerException: SocketException } => $"{Server} cannot be reached; check host and port, and that it runs.",
            NpgsqlException { InnerException: TimeoutException } or TimeoutException => $"{Server} does not answer; check host and port, and what is in between.",
            _ => Explain(exception),
        };
    }

    private static string Explain(Exception exception) => exception switch
    {
        PostgresException { SqlState: PostgresErrorCodes.ReadOnlySqlTransaction } => "The database only reads (25006): connect to the primary, or see why it takes no writes (a full disk makes Supabase read-only).",
        PostgresException { SqlState: PostgresErrorCodes.UndefinedTable } e => $"{e.MessageText} ({e.SqlState}). Run `migrate`.",
        PostgresException { SqlState: PostgresErrorCodes.InsufficientPrivilege or PostgresErrorCodes.UndefinedObject } e => $"{e.MessageText} ({e.SqlState}). See role and grants.",
        PostgresException e => $"{e.MessageText} ({e.SqlState}).",
        _ => exception.Message,
    };

    private static string Quote(string? name) => $"\"{name?.Replace("\"", "\"\"", StringComparison.Ordinal)}\"";
}
