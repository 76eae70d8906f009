// Everything the AzureFunctions build runs on. docs/deploy-azure.md walks through it.
targetScope = 'subscription'

@description('Names the resource group and tags what azd deploys to.')
@minLength(1)
@maxLength(32)
param environmentName string

@description('A region that offers Flex Consumption.')
param location string

@description('key=value or postgresql://. Written into the vault; empty: what the vault holds stays.')
@secure()
param connectionString string = ''

@description('What stands behind the classifier; azure-openai without an endpoint makes a resource here.')
@allowed(['azure-openai', 'openai', 'huggingface', 'compatible', 'baseline'])
param modelProvider string = 'azure-openai'

@description('The server, where the provider has no address of its own.')
param modelEndpoint string = ''

@description('The model; for Azure the deployment.')
param modelName string = modelProvider == 'azure-openai' ? 'gpt-4.1-mini' : ''

@description('The version of the model that is deployed here.')
param openAIModelVersion string = '2025-04-14'

@description('Thousands of tokens a minute.')
@minValue(1)
param openAICapacity int = 50

@description('Whether the model is asked with a key out of the vault.')
param useModelApiKey bool = contains(['openai', 'huggingface'], modelProvider)

@description('The provider\'s key. Written into the vault; empty: what the vault holds stays.')
@secure()
param modelApiKey string = ''

@description('Whether each POST /process-ticket must be signed with the secret out of the vault.')
param useWebhookSecret bool = false

@description('whsec_ and Base64. Written into the vault; empty: what the vault holds stays.')
@secure()
param webhookSecret string = ''

@description('NCRONTAB, six fields, UTC.')
param sweepSchedule string = '0 */5 * * * *'

@description('Further application settings, by name.')
param settings object = {}

@description('The most instances of the HTTP functions. The timer has one more of its own.')
@minValue(1)
@maxValue(1000)
param maximumInstanceCount int = 40

@description('Megabytes of each instance.')
@allowed([512, 2048, 4096])
param instanceMemoryMB int = 2048

@description('Client connections that the pooler, or the server, takes.')
@minValue(2)
param databaseConnections int = 200

@description('Those of them that are left to commands, migrations and dashboards.')
@minValue(0)
param reservedConnections int = 20

@description('Storage, vault and model behind private endpoints, and one outbound address for the database\'s allow list.')
param privateNetwork bool = false

@description('A deleted vault cannot be purged for 90 days. Once true it stays true.')
param purgeProtection bool = true

@description('Where alerts go; empty: nowhere.')
param alertEmail string = ''

@description('The oldest ticket that waits, from which on there is an alert.')
@minValue(1)
param alertAgeMinutes int = 15

@description('What a month may cost in the currency of the subscription\'s bill, before there are e-mails; 0: no budget.')
@minValue(0)
param monthlyBudget int = 0

@description('The first day of the month in which the budget is made, like 2026-11-01; not to be changed later. Empty: no budget.')
param budgetStart string = ''

var tags = { 'azd-env-name': environmentName }
var token = uniqueString(subscription().id, environmentName, location)
// What names or counts resources is known before anything is made: a preview leaves out modules where it is not.
var identityName = 'id-tickets-${token}'
var makesOpenAI = modelProvider == 'azure-openai' && empty(modelEndpoint)

// The rule: (maximumInstanceCount + 1) × Maximum Pool Size ≤ databaseConnections − reservedConnections, and no more than
// the service's own default.
var poolSize = min(20, (databaseConnections - reservedConnections) / (maximumInstanceCount + 1))

resource group 'Microsoft.Resources/resourceGroups@2024-11-01' = {
  name: 'rg-tickets-${environmentName}'
  location: location
  tags: tags
}

module identity 'modules/identity.bicep' = {
  scope: group
  params: {
    name: identityName
    location: location
    tags: tags
  }
}

module network 'modules/private-network.bicep' = if (privateNetwork) {
  scope: group
  params: {
    name: 'tickets-${token}'
    location: location
    tags: tags
  }
}

module storage 'modules/storage.bicep' = {
  scope: group
  params: {
    name: 'sttickets${token}'
    location: location
    tags: tags
    identityName: identityName
    identityPrincipalId: identity.outputs.principalId
    isPublic: !privateNetwork
  }
}

module vault 'modules/key-vault.bicep' = {
  scope: group
  params: {
    name: 'kv-${token}'
    location: location
    tags: tags
    identityName: identityName
    identityPrincipalId: identity.outputs.principalId
    isPublic: !privateNetwork
    purgeProtection: purgeProtection
    connectionString: connectionString
    poolSize: poolSize > 0 ? poolSize : fail('maximumInstanceCount is too high for databaseConnections: not one connection is left for each instance.')
    modelApiKey: modelApiKey
    webhookSecret: webhookSecret
  }
}

module monitoring 'modules/monitoring.bicep' = {
  scope: group
  params: {
    name: 'tickets-${token}'
    location: location
    tags: tags
    identityName: identityName
    identityPrincipalId: identity.outputs.principalId
  }
}

module openAI 'modules/openai.bicep' = if (makesOpenAI) {
  scope: group
  params: {
    name: 'oai-tickets-${token}'
    location: location
    tags: tags
    identityName: identityName
    identityPrincipalId: identity.outputs.principalId
    isPublic: !privateNetwork
    modelName: modelName
    modelVersion: openAIModelVersion
    capacity: openAICapacity
  }
}

module privateEndpoints 'modules/private-endpoints.bicep' = if (privateNetwork) {
  scope: group
  params: {
    location: location
    tags: tags
    networkId: network!.outputs.networkId
    subnetId: network!.outputs.endpointsSubnetId
    storageId: storage.outputs.id
    vaultId: vault.outputs.id
    hasOpenAI: makesOpenAI
    openAIId: makesOpenAI ? openAI!.outputs.id : ''
  }
}

module functionApp 'modules/function-app.bicep' = {
  scope: group
  // A start without the endpoints would not reach its package.
  dependsOn: [privateEndpoints]
  params: {
    name: 'func-tickets-${token}'
    location: location
    tags: union(tags, { 'azd-service-name': 'functions' })
    identityId: identity.outputs.id
    identityClientId: identity.outputs.clientId
    storageName: storage.outputs.name
    packageContainerUri: storage.outputs.packageContainerUri
    applicationInsightsConnectionString: monitoring.outputs.connectionString
    subnetId: privateNetwork ? network!.outputs.functionsSubnetId : ''
    maximumInstanceCount: maximumInstanceCount
    instanceMemoryMB: instanceMemoryMB
    settings: union(
      {
        ConnectionStrings__Tickets: '@Microsoft.KeyVault(SecretUri=${vault.outputs.uri}secrets/tickets-connection-string)'
        SweepSchedule: sweepSchedule
        Model__Provider: modelProvider
      },
      makesOpenAI ? { Model__Endpoint: openAI!.outputs.endpoint } : empty(modelEndpoint) ? {} : { Model__Endpoint: modelEndpoint },
      empty(modelName) ? {} : { Model__Name: modelName },
      useModelApiKey ? { Model__ApiKey: '@Microsoft.KeyVault(SecretUri=${vault.outputs.uri}secrets/model-api-key)' } : {},
      useWebhookSecret ? { Webhooks__Secret: '@Microsoft.KeyVault(SecretUri=${vault.outputs.uri}secrets/webhook-secret)' } : {},
      settings
    )
  }
}

module alerts 'modules/alerts.bicep' = if (!empty(alertEmail)) {
  scope: group
  params: {
    location: location
    tags: tags
    workspaceId: monitoring.outputs.workspaceId
    email: alertEmail
    ageMinutes: alertAgeMinutes
  }
}

module budget 'modules/budget.bicep' = if (monthlyBudget > 0 && !empty(budgetStart) && !empty(alertEmail)) {
  scope: group
  params: {
    amount: monthlyBudget
    start: budgetStart
    email: alertEmail
  }
}

@description('Where tickets are posted.')
output FUNCTION_URL string = 'https://${functionApp.outputs.hostName}/process-ticket'
output AZURE_FUNCTION_APP_NAME string = functionApp.outputs.name
output AZURE_RESOURCE_GROUP string = group.name
output AZURE_KEY_VAULT_NAME string = vault.outputs.name

@description('Who the app is, for roles on what is not made here.')
output IDENTITY_PRINCIPAL_ID string = identity.outputs.principalId

@description('Maximum Pool Size of each instance.')
output POOL_SIZE int = poolSize

@description('The address the database sees; empty without a private network.')
output OUTBOUND_ADDRESS string = privateNetwork ? network!.outputs.outboundAddress : ''
