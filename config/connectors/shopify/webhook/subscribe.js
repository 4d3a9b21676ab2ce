// One subscription per topic. What is there already is left, so the daily renewal makes only what the app dropped.
const TOPICS = [
  'ORDERS_CREATE', 'ORDERS_UPDATED', 'ORDERS_DELETE',
  'CUSTOMERS_CREATE', 'CUSTOMERS_UPDATE', 'CUSTOMERS_DELETE',
  'PRODUCTS_CREATE', 'PRODUCTS_UPDATE', 'PRODUCTS_DELETE',
  'FULFILLMENTS_CREATE', 'FULFILLMENTS_UPDATE', 'APP_UNINSTALLED',
]
const LIST = 'query Subscriptions { webhookSubscriptions(first: 250) { nodes { id topic uri } } }'
const CREATE = `mutation Subscribe($topic: WebhookSubscriptionTopic!, $uri: String!) {
  webhookSubscriptionCreate(topic: $topic, webhookSubscription: {uri: $uri, format: JSON}) {
    webhookSubscription { id }
    userErrors { field message }
  }
}`

export default async function subscribe({ apiClient, parameters, webhookUri }) {
  const path = `/admin/api/${parameters.apiVersion}/graphql.json`
  const ask = (query, variables) => apiClient.post(path, { query, variables })
  const listed = await ask(LIST)
  const there = listed.data.webhookSubscriptions.nodes.filter((one) => one.uri === webhookUri).map((one) => one.topic)
  const refused = []
  for (const topic of TOPICS.filter((topic) => !there.includes(topic))) {
    const made = await ask(CREATE, { topic, uri: webhookUri })
    const { webhookSubscription, userErrors } = made.data.webhookSubscriptionCreate
    if (!webhookSubscription) refused.push(`${topic}: ${userErrors.map((error) => error.message).join(', ')}`)
  }
  // Those that were made are heard; as long as one is missing, the polls go on as if there were none.
  if (refused.length > 0) throw new Error(`Shopify refused webhooks: ${refused.join('; ')}`)
  return { state: {} }
}
