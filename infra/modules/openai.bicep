// A model of Azure OpenAI, asked by identity: there is no key.
param name string
param location string
param tags object
param identityName string
param identityPrincipalId string
param isPublic bool
param modelName string
param modelVersion string
param capacity int

var openAIUser = '5e0bd9bd-7b93-4f28-af87-19fc36ad61bd'

resource account 'Microsoft.CognitiveServices/accounts@2025-06-01' = {
  name: name
  location: location
  tags: tags
  kind: 'OpenAI'
  sku: {
    name: 'S0'
  }
  properties: {
    // An identity is taken at an address of one's own only.
    customSubDomainName: name
    disableLocalAuth: true
    publicNetworkAccess: isPublic ? 'Enabled' : 'Disabled'
    networkAcls: {
      defaultAction: isPublic ? 'Allow' : 'Deny'
    }
  }

  resource model 'deployments' = {
    name: modelName
    sku: {
      name: 'GlobalStandard'
      capacity: capacity
    }
    properties: {
      model: {
        format: 'OpenAI'
        name: modelName
        version: modelVersion
      }
      // Another version may label differently: it comes by a deployment, not by itself.
      versionUpgradeOption: 'OnceCurrentVersionExpired'
    }
  }
}

resource access 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account.id, identityName, openAIUser)
  scope: account
  properties: {
    principalId: identityPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', openAIUser)
  }
}

output id string = account.id
output endpoint string = account.properties.endpoint
