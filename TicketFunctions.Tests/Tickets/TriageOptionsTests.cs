using TicketFunctions.Tickets;

namespace TicketFunctions.Tests.Tickets;

public sealed class TriageOptionsTests
{
    [Theory]
    [InlineData("00:01:30", "00:00:30 00:02:00 00:08:00 00:32:00 01:00:00 01:00:00")]
    [InlineData("00:00:03", "00:00:01 00:00:04 00:00:16 00:01:04 00:04:16 00:17:04 01:00:00")]
    [InlineData("01:00:00", "00:20:00 01:00:00 01:00:00")]
    public void The_wait_is_a_third_of_the_lease_and_four_times_longer_after_each_failure_up_to_an_hour(string lease, string waits)
    {
        var options = new TriageOptions { Lease = TimeSpan.Parse(lease, null) };

        Assert.Equal(
            waits.Split(' ').Select(wait => TimeSpan.Parse(wait, null)),
            Enumerable.Range(1, waits.Split(' ').Length).Select(options.BackoffAfter));
    }

    [Theory]
    [InlineData("00:00:01")]
    [InlineData("00:01:30")]
    [InlineData("01:00:00")]
    public void However_many_attempts_are_allowed_the_wait_is_never_longer_than_an_hour(string lease)
    {
        var options = new TriageOptions { Lease = TimeSpan.Parse(lease, null) };

        Assert.All(Enumerable.Range(10, 91).Append(int.MaxValue), attempts => Assert.Equal(TimeSpan.FromHours(1), options.BackoffAfter(attempts)));
    }
}
