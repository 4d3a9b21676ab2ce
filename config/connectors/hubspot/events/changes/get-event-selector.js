export default async function getEventSelector({ apiClient }) {
  const { portalId } = await apiClient.get('/account-info/v3/details')
  return { globalWebhookKey: 'app', globalWebhookEventSelector: `portal:${portalId}` }
}
