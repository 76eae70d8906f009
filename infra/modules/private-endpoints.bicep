// Private addresses of storage, vault and model, and the names that lead to them.
param location string
param tags object
param networkId string
param subnetId string
param storageId string
param vaultId string

param hasOpenAI bool

@description('Empty: there is none.')
param openAIId string

var services = concat(
  [
    { name: 'blob', id: storageId, zone: 'privatelink.blob.${environment().suffixes.storage}' }
    { name: 'queue', id: storageId, zone: 'privatelink.queue.${environment().suffixes.storage}' }
    { name: 'table', id: storageId, zone: 'privatelink.table.${environment().suffixes.storage}' }
    { name: 'vault', id: vaultId, zone: 'privatelink.vaultcore.azure.net' }
  ],
  hasOpenAI ? [{ name: 'account', id: openAIId, zone: 'privatelink.openai.azure.com' }] : []
)

resource zones 'Microsoft.Network/privateDnsZones@2024-06-01' = [
  for service in services: {
    name: service.zone
    location: 'global'
    tags: tags
  }
]

resource links 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = [
  for (service, i) in services: {
    parent: zones[i]
    name: 'tickets'
    location: 'global'
    tags: tags
    properties: {
      registrationEnabled: false
      virtualNetwork: {
        id: networkId
      }
    }
  }
]

resource endpoints 'Microsoft.Network/privateEndpoints@2024-07-01' = [
  for service in services: {
    name: 'pe-tickets-${service.name}'
    location: location
    tags: tags
    properties: {
      subnet: {
        id: subnetId
      }
      privateLinkServiceConnections: [
        {
          name: service.name
          properties: {
            privateLinkServiceId: service.id
            groupIds: [service.name]
          }
        }
      ]
    }
  }
]

resource names 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2024-07-01' = [
  for (service, i) in services: {
    parent: endpoints[i]
    name: 'default'
    properties: {
      privateDnsZoneConfigs: [
        {
          name: service.name
          properties: {
            privateDnsZoneId: zones[i].id
          }
        }
      ]
    }
  }
]
