using TicketFunctions.Hosting.AspNetCore;

return await CommandLine.RunAsync(args);
