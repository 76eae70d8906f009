using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using Npgsql;
using TicketFunctions.Hosting.AspNetCore;
using TicketFunctions.Storage;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Storage;

public sealed class ConnectionStringsTests
{
    private const string Secret = "s3cr3t";

    [Theory]
    [InlineData("postgresql://ana:clave@db.example.com:5433/tickets", "db.example.com", 5433, "tickets", "ana", "clave")]
    [InlineData("postgres://ana:clave@db.example.com/tickets", "db.example.com", 5432, "tickets", "ana", "clave")]
    [InlineData("PostgreSQL://ana:clave@db.example.com/tickets", "db.example.com", 5432, "tickets", "ana", "clave")]
    [InlineData("postgresql://ana:clave@db.example.com", "db.example.com", 5432, null, "ana", "clave")]
    [InlineData("postgresql://ana:clave@db.example.com/", "db.example.com", 5432, null, "ana", "clave")]
    [InlineData("postgresql://ana@db.example.com/tickets", "db.example.com", 5432, "tickets", "ana", null)]
    [InlineData("postgresql://ana:@db.example.com/tickets", "db.example.com", 5432, "tickets", "ana", "")]
    [InlineData("postgresql://db.example.com/tickets", "db.example.com", 5432, "tickets", null, null)]
    [InlineData("postgresql://postgres.abcdefgh:clave@aws-0-eu-west-1.pooler.supabase.com:6543/postgres", "aws-0-eu-west-1.pooler.supabase.com", 6543, "postgres", "postgres.abcdefgh", "clave")]
    [InlineData("postgresql://a%40na:p%40ss%3Aw%2Frd%3F%23%25%26%3D%3B%27%20@db.example.com/mis%20tickets", "db.example.com", 5432, "mis tickets", "a@na", "p@ss:w/rd?#%&=;' ")]
    [InlineData("postgresql://ana:una:dos+tres%2B%c3%b1@db.example.com/tickets", "db.example.com", 5432, "tickets", "ana", "una:dos+tres+ñ")]
    [InlineData("postgresql://ana:contraseña@db.example.com/tickets", "db.example.com", 5432, "tickets", "ana", "contraseña")]
    [InlineData("postgresql://ana:%2541@db.example.com/tickets", "db.example.com", 5432, "tickets", "ana", "%41")]
    [InlineData("postgresql://ana:clave@[::1]:5433/tickets", "::1", 5433, "tickets", "ana", "clave")]
    [InlineData("postgresql://ana:clave@[2001:db8::7]/tickets", "2001:db8::7", 5432, "tickets", "ana", "clave")]
    [InlineData("postgresql://ana:clave@my_db:5432/tickets", "my_db", 5432, "tickets", "ana", "clave")]
    [InlineData(" \npostgresql://ana:clave@db.example.com:5433/tickets\r\n", "db.example.com", 5433, "tickets", "ana", "clave")]
    [InlineData("Host=db.example.com;Port=5433;Database=tickets;Username=ana;Password=clave", "db.example.com", 5433, "tickets", "ana", "clave")]
    [InlineData("Server=db.example.com;User Id=ana;Password='cl;a=ve ';DB=tickets;", "db.example.com", 5432, "tickets", "ana", "cl;a=ve ")]
    public void Both_forms_name_the_same_things(string text, string host, int port, string? database, string? user, string? password)
    {
        var parsed = ConnectionStrings.Parse(text);

        Assert.Equal((host, port, database, user, password), (parsed.Host, parsed.Port, parsed.Database, parsed.Username, parsed.Password));
        Assert.Equal(GssEncryptionMode.Disable, parsed.GssEncryptionMode);
    }

    [Theory]
    [InlineData("postgresql://ana@db.example.com/tickets", SslMode.Require)]
    [InlineData("postgresql://ana@10.0.0.7/tickets", SslMode.Require)]
    [InlineData("postgresql://ana@localhost/tickets", SslMode.Prefer)]
    [InlineData("postgresql://ana@127.0.0.1/tickets", SslMode.Prefer)]
    [InlineData("postgresql://ana@[::1]/tickets", SslMode.Prefer)]
    [InlineData("Host=/var/run/postgresql;Username=ana", SslMode.Prefer)]
    [InlineData("Host=db.example.com;Username=ana", SslMode.Require)]
    [InlineData("Host=db.example.com;Username=ana;SSL Mode=Disable", SslMode.Disable)]
    [InlineData("Host=db.example.com;Username=ana;sslmode=disable", SslMode.Disable)]
    [InlineData("Host=localhost;Username=ana;SSL Mode=Require", SslMode.Require)]
    [InlineData("postgresql://ana@db.example.com/tickets?sslmode=disable", SslMode.Disable)]
    [InlineData("postgresql://ana@db.example.com/tickets?sslmode=prefer", SslMode.Prefer)]
    [InlineData("postgresql://ana@localhost/tickets?sslmode=require", SslMode.Require)]
    [InlineData("postgresql://ana@db.example.com/tickets?sslmode=verify-ca", SslMode.VerifyCA)]
    [InlineData("postgresql://ana@db.example.com/tickets?sslmode=verify-full", SslMode.VerifyFull)]
    [InlineData("postgresql://ana@db.example.com/tickets?SSL%20Mode=VerifyFull", SslMode.VerifyFull)]
    public void Other_machines_are_spoken_to_over_TLS_unless_said_otherwise(string text, SslMode mode) =>
        Assert.Equal(mode, ConnectionStrings.Parse(text).SslMode);

    [Theory]
    [InlineData("postgresql://ana@db.example.com/tickets", DatabaseAddress.Direct, false, 20, "")]
    [InlineData("postgresql://ana@db.example.com/tickets?Max%20Auto%20Prepare=10", DatabaseAddress.Direct, false, 20, "")]
    [InlineData("postgresql://postgres@db.abcdefgh.supabase.co:5432/postgres", DatabaseAddress.Direct, false, 20, "")]
    [InlineData("postgresql://postgres@db.abcdefgh.supabase.co:6543/postgres", DatabaseAddress.TransactionPooler, true, 20, "No Reset On Close=true")]
    [InlineData("postgresql://postgres.abc@aws-0-eu-west-1.pooler.supabase.com:6543/postgres", DatabaseAddress.TransactionPooler, true, 20, "No Reset On Close=true")]
    [InlineData("postgresql://postgres.abc@aws-0-eu-west-1.pooler.supabase.com:5432/postgres", DatabaseAddress.SessionPooler, false, 5, "Maximum Pool Size=5")]
    [InlineData("postgresql://postgres.abc@AWS-1-EU-WEST-1.Pooler.Supabase.com/postgres?Maximum%20Pool%20Size=12", DatabaseAddress.SessionPooler, false, 12, "")]
    [InlineData("postgresql://postgres.abc@aws-0-eu-west-1.pooler.supabase.com/postgres?sslmode=prefer", DatabaseAddress.SessionPooler, false, 5, "Maximum Pool Size=5; SSL Mode=Require")]
    [InlineData("Host=db.abcdefgh.supabase.co;Username=postgres;SSL Mode=Disable", DatabaseAddress.Direct, false, 20, "SSL Mode=Require")]
    [InlineData("Host=db.abcdefgh.supabase.co;Username=postgres;SSL Mode=VerifyFull", DatabaseAddress.Direct, false, 20, "")]
    [InlineData("postgresql://ana@pooler.supabase.com.example.com/tickets", DatabaseAddress.Direct, false, 20, "")]
    [InlineData("postgresql://ana@localhost:6432/tickets?pgbouncer=true", DatabaseAddress.TransactionPooler, true, 20, "No Reset On Close=true")]
    [InlineData("Host=db.example.com;Port=6543;Username=ana;Max Auto Prepare=10", DatabaseAddress.TransactionPooler, true, 20, "No Reset On Close=true; Max Auto Prepare=0")]
    [InlineData("Host=db.example.com;Port=6543;Username=ana;No Reset On Close=true;Maximum Pool Size=3", DatabaseAddress.TransactionPooler, true, 3, "")]
    public void A_pooler_gets_the_settings_it_needs_and_they_are_told(string text, DatabaseAddress address, bool noReset, int poolSize, string told)
    {
        var parsed = ConnectionStrings.Parse(text, out var adjusted);

        Assert.Equal(address, ConnectionStrings.FindAddress(parsed));
        Assert.Equal((noReset, poolSize), (parsed.NoResetOnClose, parsed.MaxPoolSize));
        Assert.True(address != DatabaseAddress.TransactionPooler || parsed.MaxAutoPrepare == 0);
        Assert.Equal(told, string.Join("; ", adjusted));
    }

    /// <summary>Nobody is asked: the line is written before the first connection.</summary>
    [Fact]
    public void The_start_says_once_what_the_address_made_it_set()
    {
        var log = new CapturedLog();
        var services = new ServiceCollection().AddLogging(logging => logging.AddProvider(log)).AddTicketFunctions(
            new ConfigurationBuilder().AddInMemoryCollection(
                [KeyValuePair.Create("ConnectionStrings:Tickets", (string?)$"postgresql://postgres.abc:{Secret}@aws-0-eu-west-1.pooler.supabase.com:6543/postgres")]).Build());
        using var provider = services.BuildServiceProvider();

        provider.GetRequiredService<NpgsqlDataSource>();
        provider.GetRequiredService<NpgsqlDataSource>();

        Assert.Equal(
            "Database: aws-0-eu-west-1.pooler.supabase.com:6543 is a transaction pooler, so it is used with No Reset On Close=true",
            Assert.Single(log.Entries).Message);
    }

    [Theory]
    [InlineData("none")]
    [InlineData("nombres_de_roles_con_más_de_sesenta_y_tres_bytes_que_Postgres_corta")]
    public void A_role_that_would_not_be_the_one_meant_stops_the_start(string role)
    {
        var error = Assert.Throws<OptionsValidationException>(() => PlainHost.Build([KeyValuePair.Create("Storage:Role", (string?)role)]));

        Assert.Contains("Storage__Role", Assert.Single(error.Failures), StringComparison.Ordinal);
    }

    [Fact]
    public void Parameters_of_a_URI_are_those_of_libpq_and_of_Npgsql()
    {
        var parsed = ConnectionStrings.Parse(
            "postgresql://ana@db.example.com/tickets?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.crt&connect_timeout=9&application_name=mi%20app"
            + "&options=-c%20search_path%3Dapp&Maximum%20Pool%20Size=3&channel_binding=prefer&target_session_attrs=any&gssencmode=prefer");

        Assert.Equal("/etc/ca.crt", parsed.RootCertificate);
        Assert.Equal(9, parsed.Timeout);
        Assert.Equal("mi app", parsed.ApplicationName);
        Assert.Equal("-c search_path=app", parsed.Options);
        Assert.Equal(3, parsed.MaxPoolSize);
        Assert.Equal(GssEncryptionMode.Disable, parsed.GssEncryptionMode);
    }

    [Fact]
    public void What_is_said_is_kept_and_the_rest_has_bounds()
    {
        var silent = ConnectionStrings.Parse("Host=localhost;Username=ana");
        var said = ConnectionStrings.Parse("Host=localhost;Username=ana;Timeout=30;CommandTimeout=60;MaxPoolSize=7;ApplicationName=mine");

        Assert.Equal((5, 4, 20, "ticket-functions"), (silent.Timeout, silent.CommandTimeout, silent.MaxPoolSize, silent.ApplicationName));
        Assert.Equal((-1, 60), (silent.CancellationTimeout, silent.TcpKeepAliveTime));
        Assert.Equal((30, 60, 7, "mine"), (said.Timeout, said.CommandTimeout, said.MaxPoolSize, said.ApplicationName));
        Assert.Equal(0, ConnectionStrings.Parse("Host=/var/run/postgresql;Username=ana").TcpKeepAliveTime);
    }

    [Theory]
    [InlineData("")]
    [InlineData("  ")]
    [InlineData("s3cr3t")]
    [InlineData("Host=")]
    [InlineData("Username=ana;Password=s3cr3t")]
    [InlineData("Host=db;Password=s3cr3t;Nonsense=1")]
    [InlineData("Host=db;Password=s3c;r3t;Username=ana")]
    [InlineData("Host=db;Password='s3cr3t")]
    [InlineData("Host=db;Port=s3cr3t")]
    [InlineData("Host=db;Port=99999999999;Password=s3cr3t")]
    [InlineData("Host=db;Port=0;Password=s3cr3t")]
    [InlineData("Host=db;Port=-1;Password=s3cr3t")]
    [InlineData("Host=db;SSL Mode=s3cr3t")]
    [InlineData("Host=db;Timeout=-1;Password=s3cr3t")]
    [InlineData("postgresql://")]
    [InlineData("postgresql:///tickets")]
    [InlineData("postgresql://ana:s3cr3t@")]
    [InlineData("postgresql://ana:s3cr3t@/tickets")]
    [InlineData("postgresql://ana:s3cr3t@db:port/tickets")]
    [InlineData("postgresql://ana:s3cr3t@db:99999/tickets")]
    [InlineData("postgresql://ana:s3cr3t@db:0/tickets")]
    [InlineData("postgresql://ana:s3cr3t@one,two/tickets")]
    [InlineData("postgresql://ana:s3cr3t@one:5432,two:5432/tickets")]
    [InlineData("postgresql://ana:a#s3cr3t@db/tickets")]
    [InlineData("postgresql://ana:a/s3cr3t@db/tickets")]
    [InlineData("postgresql://ana:a?s3cr3t@db/tickets")]
    [InlineData("postgresql://ana:1#s3cr3t@db/tickets")]
    [InlineData("postgresql://ana:1/s3cr3t@db/tickets")]
    [InlineData("postgresql://ana:1?s3cr3t@db/tickets")]
    [InlineData("postgresql://ana:1?s3cr3t=1@db/tickets")]
    [InlineData("postgresql://ana:clave@db/tickets?sslmode=s3cr3t")]
    [InlineData("postgresql://ana:clave@db/tickets?sslmode=")]
    [InlineData("postgresql://ana:clave@db/tickets?connect_timeout=s3cr3t")]
    [InlineData("postgresql://ana:clave@db/tickets?port=s3cr3t")]
    [InlineData("postgresql://ana:clave@db/tickets?nonsense=s3cr3t")]
    [InlineData("postgresql://ana:clave@db/tickets?s3cr3t")]
    [InlineData("postgresql://ana:clave@db/tickets?s3cr3t=1")]
    [InlineData("mysql://ana:s3cr3t@db/tickets")]
    [InlineData("https://ana:s3cr3t@db/tickets")]
    [InlineData("postgresql:/ana:s3cr3t@db/tickets")]
    [InlineData("jdbc:postgresql://ana:s3cr3t@db/tickets")]
    public void What_cannot_be_read_is_told_with_the_forms_and_without_the_text(string text)
    {
        var error = Assert.Throws<FormatException>(() => ConnectionStrings.Parse(text));

        Assert.Contains("Host=", error.Message, StringComparison.Ordinal);
        Assert.Contains("postgresql://", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain(Secret, error.ToString(), StringComparison.OrdinalIgnoreCase);
        Assert.Null(error.InnerException);
    }

    [Fact]
    public void A_parameter_that_is_known_is_named_when_its_value_cannot_be_read() => Assert.Contains(
        "sslmode",
        Assert.Throws<FormatException>(() => ConnectionStrings.Parse("postgresql://ana@db/tickets?sslmode=always")).Message,
        StringComparison.Ordinal);
}
