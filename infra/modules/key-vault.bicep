// The secrets. The function app may read them; Azure's own roles decide who else does anything.
@minLength(3)
@maxLength(24)
param name string

param location string
param tags object
param identityName string
param identityPrincipalId string
param isPublic bool
param purgeProtection bool
param poolSize int

@secure()
param connectionString string

@secure()
param modelApiKey string

@secure()
param webhookSecret string

var secretsUser = '4633458b-17de-408a-b874-0445c86b69e6'

// A Maximum Pool Size that stands there already is somebody's choice.
var isUri = startsWith(toLower(connectionString), 'postgres')
var keywords = replace(replace(toLower(connectionString), '%20', ''), ' ', '')
var hasPoolSize = contains(keywords, 'maximumpoolsize') || contains(keywords, 'maxpoolsize')
var separator = !isUri ? ';' : contains(connectionString, '?') ? '&' : '?'
var pooled = hasPoolSize ? connectionString : '${connectionString}${separator}Maximum${isUri ? '%20' : ' '}Pool${isUri ? '%20' : ' '}Size=${poolSize}'

resource vault 'Microsoft.KeyVault/vaults@2024-11-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    tenantId: tenant().tenantId
    sku: {
      family: 'A'
      name: 'standard'
    }
    enableRbacAuthorization: true
    enableSoftDelete: true
    // It takes true or nothing.
    enablePurgeProtection: purgeProtection ? true : null
    publicNetworkAccess: isPublic ? 'Enabled' : 'Disabled'
    networkAcls: {
      bypass: 'AzureServices'
      defaultAction: isPublic ? 'Allow' : 'Deny'
    }
  }

  resource connection 'secrets' = if (!empty(connectionString)) {
    name: 'tickets-connection-string'
    properties: {
      value: pooled
    }
  }

  resource apiKey 'secrets' = if (!empty(modelApiKey)) {
    name: 'model-api-key'
    properties: {
      value: modelApiKey
    }
  }

  resource webhook 'secrets' = if (!empty(webhookSecret)) {
    name: 'webhook-secret'
    properties: {
      value: webhookSecret
    }
  }
}

resource access 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault.id, identityName, secretsUser)
  scope: vault
  properties: {
    principalId: identityPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', secretsUser)
  }
}

output id string = vault.id
output name string = vault.name
output uri string = vault.properties.vaultUri
