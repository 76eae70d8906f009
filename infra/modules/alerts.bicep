// What an operator is told by e-mail. The questions go to the log, where the service writes a line after each sweep.
param location string
param tags object
param workspaceId string
param email string
param ageMinutes int

var backlog = 'AppTraces | where Message startswith "Backlog: " | parse Message with "Backlog: " * " in flight, " Parked:long " parked, the oldest that is not parked waits for " Seconds:long " s" | top 1 by TimeGenerated desc'

var rules = [
  {
    name: 'oldest-ticket-waits'
    description: 'A ticket has waited for labels too long. docs/operations.md: "The backlog\'s oldest ticket gets older".'
    query: '${backlog} | project TimeGenerated, Value = Seconds'
    operator: 'GreaterThan'
    threshold: ageMinutes * 60
    window: 'PT15M'
    severity: 1
  }
  {
    name: 'tickets-parked'
    description: 'Attempts at a ticket are used up; nobody tries it again by itself. docs/operations.md: "Parked tickets".'
    query: '${backlog} | project TimeGenerated, Value = Parked'
    operator: 'GreaterThan'
    threshold: 0
    window: 'PT15M'
    severity: 2
  }
  {
    name: 'sweep-silent'
    description: 'No sweep has ended for half an hour. SweepSchedule has to be more frequent than that.'
    query: 'AppTraces | where Message startswith "Sweep: " | summarize Value = count()'
    operator: 'LessThan'
    threshold: 1
    window: 'PT30M'
    severity: 1
  }
  {
    name: 'server-errors'
    description: 'More than five requests were answered 5xx in a quarter of an hour. docs/operations.md: "What happens when something fails".'
    query: 'AppRequests | where toint(ResultCode) between (500 .. 599) | summarize Value = sum(ItemCount)'
    operator: 'GreaterThan'
    threshold: 5
    window: 'PT15M'
    severity: 2
  }
  {
    name: 'model-budget-spent'
    description: 'Model__TokensPerDay or Model__CostPerDay is used up; tickets wait for the next day, UTC.'
    query: 'AppTraces | where Message has "the daily budget for model calls is used up" | summarize Value = count()'
    operator: 'GreaterThan'
    threshold: 0
    window: 'PT15M'
    severity: 2
  }
]

resource operators 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: 'ag-tickets'
  location: 'global'
  tags: tags
  properties: {
    groupShortName: 'tickets'
    enabled: true
    emailReceivers: [
      {
        name: 'operators'
        emailAddress: email
        useCommonAlertSchema: true
      }
    ]
  }
}

resource alerts 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [
  for rule in rules: {
    name: 'tickets-${rule.name}'
    location: location
    tags: tags
    properties: {
      displayName: 'Tickets: ${rule.name}'
      description: rule.description
      severity: rule.severity
      enabled: true
      scopes: [workspaceId]
      evaluationFrequency: 'PT5M'
      windowSize: rule.window
      criteria: {
        allOf: [
          {
            query: rule.query
            timeAggregation: 'Maximum'
            metricMeasureColumn: 'Value'
            operator: rule.operator
            threshold: rule.threshold
            failingPeriods: {
              numberOfEvaluationPeriods: 1
              minFailingPeriodsToAlert: 1
            }
          }
        ]
      }
      autoMitigate: true
      // The tables are there once the first lines have arrived.
      skipQueryValidation: true
      actions: {
        actionGroups: [operators.id]
      }
    }
  }
]
