# The default build as a container: no shell, no root, nothing to write. docs/container.md.
FROM mcr.microsoft.com/dotnet/sdk:10.0-noble AS build
WORKDIR /src
COPY .editorconfig global.json Directory.Build.props Directory.Packages.props ./
COPY TicketFunctions/TicketFunctions.csproj TicketFunctions/packages.lock.json TicketFunctions/
# Against the lock file; then for this platform, whose compiler ahead of time is a package.
RUN dotnet restore TicketFunctions --locked-mode && dotnet restore TicketFunctions --use-current-runtime
COPY host.json ./
COPY infra/supabase infra/supabase
COPY TicketFunctions TicketFunctions
RUN dotnet publish TicketFunctions --no-restore -c Release --use-current-runtime -p:UseAppHost=false -o /app

# -extra has ICU: without it texts are not normalised, and a label's accents matter.
FROM mcr.microsoft.com/dotnet/aspnet:10.0-noble-chiseled-extra
WORKDIR /app
COPY --from=build /app .
ENV ASPNETCORE_HTTP_PORTS=8080 \
    DOTNET_EnableDiagnostics=0
EXPOSE 8080
# The image's own: $APP_UID is its user, here by number so that Kubernetes can tell that it is not root.
USER 1654
HEALTHCHECK --interval=30s --timeout=6s --start-period=20s --retries=3 CMD ["dotnet", "TicketFunctions.dll", "health"]
ENTRYPOINT ["dotnet", "TicketFunctions.dll"]
