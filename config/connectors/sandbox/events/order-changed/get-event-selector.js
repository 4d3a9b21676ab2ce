export default async function getEventSelector({ apiClient }) {
  const me = await apiClient.get('/api/me')
  return { globalWebhookKey: 'changes', globalWebhookEventSelector: `order/${me.account_id}` }
}
