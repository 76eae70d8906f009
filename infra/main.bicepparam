// One file for every environment: the values come from azd's environment (`azd env set NAME value`) or the workflow's.
using './main.bicep'

param environmentName = readEnvironmentVariable('AZURE_ENV_NAME')
param location = readEnvironmentVariable('AZURE_LOCATION')

// Secrets. Empty ones are left as the vault has them.
param connectionString = readEnvironmentVariable('TICKETS_CONNECTION_STRING', '')
param modelApiKey = readEnvironmentVariable('MODEL_API_KEY', '')
param webhookSecret = readEnvironmentVariable('WEBHOOK_SECRET', '')

var provider = readEnvironmentVariable('MODEL_PROVIDER', 'azure-openai')

param modelProvider = provider
param modelEndpoint = readEnvironmentVariable('MODEL_ENDPOINT', '')
param modelName = readEnvironmentVariable('MODEL_NAME', provider == 'azure-openai' ? 'gpt-4.1-mini' : '')
param openAIModelVersion = readEnvironmentVariable('OPENAI_MODEL_VERSION', '2025-04-14')
param openAICapacity = int(readEnvironmentVariable('OPENAI_CAPACITY', '50'))
param useModelApiKey = bool(readEnvironmentVariable('USE_MODEL_API_KEY', contains(['openai', 'huggingface'], provider) ? 'true' : 'false'))
param useWebhookSecret = bool(readEnvironmentVariable('USE_WEBHOOK_SECRET', 'false'))

param sweepSchedule = readEnvironmentVariable('SWEEP_SCHEDULE', '0 */5 * * * *')
param settings = json(readEnvironmentVariable('SETTINGS', '{}'))

param maximumInstanceCount = int(readEnvironmentVariable('MAXIMUM_INSTANCE_COUNT', '40'))
// Not int(): its result is any whole number to the compiler, which then refuses it for one of three.
param instanceMemoryMB = json(readEnvironmentVariable('INSTANCE_MEMORY_MB', '2048'))
param databaseConnections = int(readEnvironmentVariable('DATABASE_CONNECTIONS', '200'))
param reservedConnections = int(readEnvironmentVariable('RESERVED_CONNECTIONS', '20'))

param privateNetwork = bool(readEnvironmentVariable('PRIVATE_NETWORK', 'false'))
param purgeProtection = bool(readEnvironmentVariable('PURGE_PROTECTION', 'true'))

param alertEmail = readEnvironmentVariable('ALERT_EMAIL', '')
param alertAgeMinutes = int(readEnvironmentVariable('ALERT_AGE_MINUTES', '15'))
param monthlyBudget = int(readEnvironmentVariable('MONTHLY_BUDGET', '0'))
param budgetStart = readEnvironmentVariable('BUDGET_START', '')
