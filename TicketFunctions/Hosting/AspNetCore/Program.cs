using System.Globalization;
using TicketFunctions.Hosting.AspNetCore;

// What is read and written here is for machines and logs: no minus sign and no year may follow the language of the machine.
CultureInfo.CurrentCulture = CultureInfo.DefaultThreadCurrentCulture = CultureInfo.InvariantCulture;

return await CommandLine.RunAsync(args);
