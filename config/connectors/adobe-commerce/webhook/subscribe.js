// Which events leave the shop (POST /V1/eventing/eventSubscribe; the account needs the resource event_subscribe). Without
// the module the shop answers 404: then there is nothing to subscribe, and the collections are polled.
const EVENTS = {
  'observer.sales_order_save_commit_after': ['entity_id', 'updated_at', '_isNew'],
  'observer.sales_order_shipment_save_after': ['entity_id', 'updated_at', '_isNew'],
  'observer.customer_save_commit_after': ['id', 'updated_at', '_isNew'],
  'observer.customer_delete_commit_after': ['id'],
  'observer.catalog_product_save_commit_after': ['entity_id', 'updated_at', '_isNew'],
  'observer.catalog_product_delete_commit_after': ['entity_id'],
}

export default async function subscribe({ apiClient, parameters }) {
  const there = (await apiClient.get('/V1/eventing/getEventSubscriptions')) ?? []
  const known = there.map((event) => event.name)
  const wanted = Object.keys(EVENTS).filter((name) => !known.includes(name))
  for (const name of wanted) {
    const event = { name, fields: EVENTS[name].map((field) => ({ name: field })), priority: parameters.ioPriority }
    await apiClient.post('/V1/eventing/eventSubscribe', { event })
  }
  // Only what was not there before is taken away in the end.
  return { state: { events: Object.keys(EVENTS), ours: wanted } }
}
