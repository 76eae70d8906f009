// The Flex Consumption plan and the app. HTTPS only, no FTP, no publishing by password.
param name string
param location string
param tags object
param identityId string
param identityClientId string
param storageName string
param packageContainerUri string
param applicationInsightsConnectionString string

@description('Empty: no private network.')
param subnetId string

param maximumInstanceCount int
param instanceMemoryMB int
param settings object

resource plan 'Microsoft.Web/serverfarms@2024-11-01' = {
  name: 'plan-${name}'
  location: location
  tags: tags
  kind: 'functionapp'
  sku: {
    tier: 'FlexConsumption'
    name: 'FC1'
  }
  properties: {
    reserved: true
  }
}

resource app 'Microsoft.Web/sites@2024-11-01' = {
  name: name
  location: location
  tags: tags
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    // Without it a reference into the vault is read by a system-assigned identity, which there is not.
    keyVaultReferenceIdentity: identityId
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: packageContainerUri
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      runtime: {
        name: 'dotnet-isolated'
        version: '10.0'
      }
      scaleAndConcurrency: {
        maximumInstanceCount: maximumInstanceCount
        instanceMemoryMB: instanceMemoryMB
        triggers: {
          http: {
            // Requests wait for a model most of the time, and hold no connection meanwhile.
            perInstanceConcurrency: 100
          }
        }
      }
    }
    siteConfig: {
      // Not ftpsState: Flex Consumption offers no FTP and refuses the property.
      minTlsVersion: '1.2'
      scmMinTlsVersion: '1.2'
    }
  }

  // Azure has refused these two without a location, which their published type does not know.
  resource noFtp 'basicPublishingCredentialsPolicies' = {
    name: 'ftp'
    #disable-next-line BCP187
    location: location
    properties: {
      allow: false
    }
  }

  resource noPassword 'basicPublishingCredentialsPolicies' = {
    name: 'scm'
    #disable-next-line BCP187
    location: location
    properties: {
      allow: false
    }
  }

  resource appSettings 'config' = {
    name: 'appsettings'
    properties: union(
      {
        AzureWebJobsStorage__accountName: storageName
        AzureWebJobsStorage__credential: 'managedidentity'
        AzureWebJobsStorage__clientId: identityClientId
        APPLICATIONINSIGHTS_CONNECTION_STRING: applicationInsightsConnectionString
        APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
        // Azure OpenAI is asked as this identity, and as no other that may be found.
        AZURE_CLIENT_ID: identityClientId
        AZURE_TOKEN_CREDENTIALS: 'ManagedIdentityCredential'
      },
      settings
    )
  }
}

output name string = app.name
output hostName string = app.properties.defaultHostName
