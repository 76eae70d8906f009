using System.Net;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Triggers;

public sealed class ShowBacklogTests(TicketApp app) : IClassFixture<TicketApp>
{
    [Fact]
    public async Task The_backlog_counts_what_is_left_to_do_and_how_old_it_is()
    {
        var empty = await app.Http.GetAsync("/backlog");
        Assert.Equal(HttpStatusCode.OK, empty.StatusCode);
        JsonAssert.Equal("""{"unprocessed":0,"inFlight":0,"parked":0,"oldestSeconds":0}""", await empty.ReadJsonAsync());

        var done = await app.AddTicketAsync("Hecho hace tiempo.");
        await app.ProcessAsync(done);
        await app.ExecuteAsync("update tickets set created_at = now() - interval '1 day' where id = @done", new { done });
        await app.AddTicketAsync("Nuevo.");
        var blank = await app.AddTicketAsync("\u200b");
        await app.ProcessAsync(blank);
        var failing = await app.AddTicketAsync("Espera su segundo intento.");
        app.Model.On("Espera su segundo intento.", ModelStub.Raw(500, "text/plain", "no"));
        await app.ProcessAsync(failing);
        await app.ExecuteAsync("update tickets set created_at = now() - interval '1 hour' where id = @failing", new { failing });
        var dead = await app.AddTicketAsync("Su proceso ha muerto.");
        await app.ExecuteAsync("insert into ticket_work (ticket_id, attempts, lease_token, due_at) values (@dead, 1, gen_random_uuid(), now() - interval '1 second')", new { dead });
        var held = await app.AddTicketAsync("En curso.");
        var hold = app.Model.Hold("En curso.");
        var processing = app.ProcessAsync(held);
        await hold.Arrived;

        var backlog = (await (await app.Http.GetAsync("/backlog")).ReadJsonAsync()).AsObject();
        hold.Release();
        await processing;

        Assert.InRange((double)backlog["oldestSeconds"]!, 3600, 3660);
        backlog.Remove("oldestSeconds");
        JsonAssert.Equal("""{"unprocessed":5,"inFlight":1,"parked":1}""", backlog);
    }
}
