// CloudEvents 1.0, alone or as a batch: {"type": "com.adobe.commerce.observer.…", "data": {"value": {…}}}; and the older
// form {"event": {"value": {…}}}, whose code is in the header. The value has the subscribed fields, and may be cut at
// 64 KB: it is only a hint, and the record is fetched.
const COLLECTIONS = {
  sales_order: 'orders',
  sales_order_shipment: 'shipments',
  customer: 'customers',
  catalog_product: 'products',
}
const CODE = /observer\.(sales_order|sales_order_shipment|customer|catalog_product)_(save|delete)(?:_commit)?_after(?:\.|$)/

export default async function handle({ data, headers }) {
  const items = Array.isArray(data) ? data : [data]
  const events = []
  for (const item of items) {
    const code = item?.type ?? headers['x-adobe-event-code'] ?? ''
    const found = CODE.exec(code)
    // What somebody else has subscribed in the same project.
    if (!found) continue
    const value = (item.data ?? item.event)?.value ?? {}
    const id = value.entity_id ?? value.id
    if (id === undefined || id === null) throw new Error(`${code} names no record: subscribe it with entity_id or id`)
    const type = found[2] === 'delete' ? 'deleted' : value._isNew === true ? 'created' : 'updated'
    events.push({ collection: COLLECTIONS[found[1]], type, id: String(id) })
  }
  return { events }
}
