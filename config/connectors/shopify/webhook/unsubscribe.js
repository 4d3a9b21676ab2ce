const LIST = 'query Subscriptions { webhookSubscriptions(first: 250) { nodes { id topic uri } } }'
const DELETE = `mutation Unsubscribe($id: ID!) {
  webhookSubscriptionDelete(id: $id) { deletedWebhookSubscriptionId userErrors { field message } }
}`

export default async function unsubscribe({ apiClient, parameters, webhookUri }) {
  const path = `/admin/api/${parameters.apiVersion}/graphql.json`
  const listed = await apiClient.post(path, { query: LIST })
  for (const { id, uri } of listed.data.webhookSubscriptions.nodes) {
    if (uri === webhookUri) await apiClient.post(path, { query: DELETE, variables: { id } })
  }
}
