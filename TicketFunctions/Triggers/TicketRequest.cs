using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;
using TicketFunctions.Tickets;

namespace TicketFunctions.Triggers;

/// <summary>The body of a client.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public sealed record TicketBody(
    [property: Description("The id of the ticket's row, and not the nil UUID.")] Guid Id,
    [property: Description("The text as the client has it. May be left out; when given it must be the stored text, up to Unicode normalisation and surrounding blanks.")]
    [property: MinLength(1), MaxLength(TicketText.MaxLength), JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    string? Description = null);

/// <summary>What became of a row, in the words of a Supabase database webhook.</summary>
public enum WebhookEvent
{
    INSERT,
    UPDATE,
    DELETE,
}

/// <summary>The row of a webhook, as it was when the webhook was queued.</summary>
public sealed record WebhookRecord(
    [property: Description("The id of the ticket's row, and not the nil UUID.")] Guid Id,
    [property: Description("Not compared with the row: the text may have been edited since.")] string? Description = null,
    [property: Description("A row that has labels is ignored.")] bool? Processed = null);

/// <summary>The body of a Supabase database webhook.</summary>
/// <remarks>https://supabase.com/docs/guides/database/webhooks</remarks>
public sealed record WebhookBody(
    WebhookEvent Type,
    [property: Description("Only public is ours; of another schema the webhook is ignored.")] string Schema,
    [property: Description("Only tickets is ours; of another table the webhook is ignored.")] string Table,
    WebhookRecord? Record,
    [property: JsonPropertyName("old_record")] JsonObject? OldRecord = null);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, UseStringEnumConverter = true)]
[JsonSerializable(typeof(TicketBody))]
[JsonSerializable(typeof(WebhookBody))]
internal sealed partial class RequestJson : JsonSerializerContext;

/// <summary>What a body asks for: one ticket, or nothing when <paramref name="Ignored"/> says why.</summary>
/// <param name="Id">The ticket.</param>
/// <param name="Description">The text the client believes it has; null when it did not say.</param>
/// <param name="Ignored">Why the body asks for nothing.</param>
public sealed record TicketRequest(Guid Id, string? Description, string? Ignored = null)
{
    /// <summary>Reads either body: <c>{id, description?}</c>, or a Supabase database webhook.</summary>
    /// <param name="utf8">The body.</param>
    /// <remarks>https://supabase.com/docs/guides/database/webhooks</remarks>
    public static (TicketRequest? Request, Problem? Problem) Read(ReadOnlyMemory<byte> utf8) =>
        ReadPlain(utf8.Span) is { } plain ? (plain, null) : ReadCarefully(utf8);

    /// <summary>Reads the body of a client in which nothing is wrong, in one pass and without a document in between.</summary>
    /// <returns>Null for every other body; <see cref="ReadCarefully"/> says what it is.</returns>
    public static TicketRequest? ReadPlain(ReadOnlySpan<byte> utf8)
    {
        var id = Guid.Empty;
        string? description = null;
        try
        {
            var reader = new Utf8JsonReader(utf8, RequestBody.ReaderOptions);
            reader.Read();
            if (reader.TokenType != JsonTokenType.StartObject)
            {
                return null;
            }

            while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
            {
                var isId = reader.ValueTextEquals("id"u8);
                if ((isId ? id != Guid.Empty : description is not null || !reader.ValueTextEquals("description"u8))
                    || !reader.Read() || reader.TokenType != JsonTokenType.String)
                {
                    return null;
                }

                // A string is decoded once, and strictly.
                if (isId ? !reader.TryGetGuid(out id) : FindTextFault(description = reader.GetString()!) is not null)
                {
                    return null;
                }
            }

            // Says whether anything but blanks follows.
            reader.Read();
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            // Not JSON, or a string that is not Unicode.
            return null;
        }

        return id == Guid.Empty ? null : new TicketRequest(id, description);
    }

    /// <summary>Reads any body, and tells everything that is wrong with it.</summary>
    public static (TicketRequest? Request, Problem? Problem) ReadCarefully(ReadOnlyMemory<byte> utf8)
    {
        var (document, problem) = RequestBody.Parse(utf8);
        using (document)
        {
            return problem is null ? Read(document!.RootElement) : (null, problem);
        }
    }

    private static (TicketRequest? Request, Problem? Problem) Read(JsonElement root)
    {
        if (root.ValueKind != JsonValueKind.Object)
        {
            return (null, Problem.InvalidShape([new ProblemError("", "Must be an object.")]));
        }

        var reader = new MemberReader();
        var request = IsWebhook(root) ? ReadWebhook(root, reader) : ReadTicket(root, reader);
        return reader.ShapeErrors.Count > 0 ? (null, Problem.InvalidShape(reader.ShapeErrors))
            : reader.ValueErrors.Count > 0 ? (null, Problem.InvalidValue(reader.ValueErrors))
            : (request, null);
    }

    private static bool IsWebhook(JsonElement root) =>
        root.TryGetProperty("record", out _)
        || (!root.TryGetProperty("id", out _) && (root.TryGetProperty("type", out _) || root.TryGetProperty("table", out _)));

    private static TicketRequest? ReadTicket(JsonElement root, MemberReader reader)
    {
        reader.CheckNames(root, "", RequestJson.Default.TicketBody);
        var id = reader.ReadId(root, "");
        string? description = null;
        if (root.TryGetProperty("description", out var member))
        {
            description = reader.ReadString(member, "/description");
            if (description is not null)
            {
                reader.CheckText(description, "/description");
            }
        }

        return id is null ? null : new TicketRequest(id.Value, description);
    }

    private static TicketRequest? ReadWebhook(JsonElement root, MemberReader reader)
    {
        reader.CheckNames(root, "", RequestJson.Default.WebhookBody);
        var type = reader.ReadRequiredString(root, "type");
        var schema = reader.ReadRequiredString(root, "schema");
        var table = reader.ReadRequiredString(root, "table");
        if (type is not null && !Enum.GetNames<WebhookEvent>().Contains(type))
        {
            reader.ShapeErrors.Add(new ProblemError("/type", "Must be INSERT, UPDATE or DELETE."));
        }

        var record = reader.ReadRecord(root, "record", required: true);
        reader.ReadRecord(root, "old_record", required: false);
        if (schema is not (null or "public") || table is not (null or "tickets"))
        {
            return Ignore("another table");
        }

        if (type == nameof(WebhookEvent.DELETE))
        {
            return Ignore("deleted");
        }

        if (record is not { } row)
        {
            return Ignore("no record");
        }

        reader.CheckNames(row, "/record", RequestJson.Default.WebhookRecord);
        var id = reader.ReadId(row, "/record");
        var processed = reader.ReadOptionalBoolean(row, "processed", "/record/processed");
        if (row.TryGetProperty("description", out var description) && description.ValueKind is not (JsonValueKind.String or JsonValueKind.Null))
        {
            reader.ShapeErrors.Add(new ProblemError("/record/description", "Must be a string."));
        }

        // The record is a snapshot from when the webhook was queued: the row decides, not the text in it.
        return processed ? Ignore("already processed")
            : id is null ? null
            : new TicketRequest(id.Value, null);
    }

    private static TicketRequest Ignore(string why) => new(Guid.Empty, null, why);

    private static string? FindTextFault(string text) =>
        text.Contains('\0', StringComparison.Ordinal) ? "Must not hold U+0000, which Postgres cannot store."
        : !TicketText.IsVisible(text) ? "Must hold something visible."
        : text.Length > TicketText.MaxLength ? $"Must have at most {TicketText.MaxLength} characters."
        : null;

    /// <summary>Reads members and gathers every error on the way, so that all are told at once.</summary>
    private sealed class MemberReader
    {
        public List<ProblemError> ShapeErrors { get; } = [];

        public List<ProblemError> ValueErrors { get; } = [];

        /// <summary>Rejects what occurs twice, and what the contract does not know where it is closed.</summary>
        public void CheckNames(JsonElement parent, string path, JsonTypeInfo contract)
        {
            string[] known = [.. contract.Properties.Select(property => property.Name)];
            var allowUnknown = contract.UnmappedMemberHandling != JsonUnmappedMemberHandling.Disallow;
            var seen = new HashSet<string>(StringComparer.Ordinal);
            var unknown = 0;
            foreach (var member in parent.EnumerateObject())
            {
                var isKnown = known.Contains(member.Name);
                if (!isKnown)
                {
                    unknown++;
                }

                if (!seen.Add(member.Name) && (isKnown || allowUnknown))
                {
                    ShapeErrors.Add(new ProblemError(isKnown ? $"{path}/{member.Name}" : path, "A member occurs twice."));
                }
            }

            if (unknown > 0 && !allowUnknown)
            {
                // The names are the client's own and are not repeated.
                ShapeErrors.Add(new ProblemError(path, $"{unknown} unknown member(s); only {string.Join(", ", known)} may occur."));
            }
        }

        public Guid? ReadId(JsonElement parent, string path)
        {
            if (!parent.TryGetProperty("id", out var member))
            {
                ShapeErrors.Add(new ProblemError($"{path}/id", "Is missing."));
                return null;
            }

            if (ReadString(member, $"{path}/id") is not { } text)
            {
                return null;
            }

            // By itself the parser takes blanks around a UUID, and signs and 0x within.
            if (text.Length == 36 && text.All(c => c == '-' || char.IsAsciiHexDigit(c)) && Guid.TryParseExact(text, "D", out var id) && id != Guid.Empty)
            {
                return id;
            }

            ValueErrors.Add(new ProblemError($"{path}/id", "Must be a UUID in its usual form, 8-4-4-4-12 hexadecimal digits, and not the nil UUID."));
            return null;
        }

        public string? ReadRequiredString(JsonElement parent, string name)
        {
            if (parent.TryGetProperty(name, out var member))
            {
                return ReadString(member, $"/{name}");
            }

            ShapeErrors.Add(new ProblemError($"/{name}", "Is missing."));
            return null;
        }

        public string? ReadString(JsonElement member, string pointer)
        {
            if (member.ValueKind == JsonValueKind.String)
            {
                return member.GetString();
            }

            ShapeErrors.Add(new ProblemError(pointer, "Must be a string."));
            return null;
        }

        public JsonElement? ReadRecord(JsonElement parent, string name, bool required)
        {
            if (!parent.TryGetProperty(name, out var member))
            {
                if (required)
                {
                    ShapeErrors.Add(new ProblemError($"/{name}", "Is missing."));
                }

                return null;
            }

            if (member.ValueKind is JsonValueKind.Object)
            {
                return member;
            }

            if (member.ValueKind != JsonValueKind.Null)
            {
                ShapeErrors.Add(new ProblemError($"/{name}", "Must be an object or null."));
            }

            return null;
        }

        public bool ReadOptionalBoolean(JsonElement parent, string name, string pointer)
        {
            if (!parent.TryGetProperty(name, out var member) || member.ValueKind is JsonValueKind.Null or JsonValueKind.False)
            {
                return false;
            }

            if (member.ValueKind == JsonValueKind.True)
            {
                return true;
            }

            ShapeErrors.Add(new ProblemError(pointer, "Must be true, false or null."));
            return false;
        }

        public void CheckText(string text, string pointer)
        {
            if (FindTextFault(text) is { } fault)
            {
                ValueErrors.Add(new ProblemError(pointer, fault));
            }
        }
    }
}
