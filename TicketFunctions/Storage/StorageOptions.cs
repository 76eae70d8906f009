using System.ComponentModel.DataAnnotations;
using System.Text;

namespace TicketFunctions.Storage;

/// <summary>The section <c>Storage</c>: with what rights the service works on the database.</summary>
public sealed class StorageOptions : IValidatableObject
{
    /// <summary>Names longer than this, in bytes, Postgres cuts.</summary>
    private const int MaxNameLength = 63;

    private string? _role;

    /// <summary>The role every statement of the service runs as; null for the login's own. The login must be a member of it.</summary>
    public string? Role
    {
        get => _role;
        set => _role = string.IsNullOrWhiteSpace(value) ? null : value.Trim();
    }

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext)
    {
        // To Postgres 'none' is the login itself: all its rights.
        if (Role is { } role && (role == "none" || role.Contains('\0', StringComparison.Ordinal) || Encoding.UTF8.GetByteCount(role) > MaxNameLength))
        {
            yield return new ValidationResult(
                "Storage__Role is no name of a role; write one like ticket_functions, or remove it to work with the login's own rights.");
        }
    }
}
