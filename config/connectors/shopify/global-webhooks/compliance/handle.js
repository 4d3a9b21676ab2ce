// The mandatory topics of every public app (shopify.dev, "Privacy law compliance").
export default async function handle({ data, headers }) {
  const shop = data.shop_domain
  switch (headers['x-shopify-topic'] ?? headers['shopify-topic']) {
    case 'customers/redact': {
      const orders = (data.orders_to_redact ?? []).map((id) => ({ payload: { id }, selector: `redact-order:${shop}` }))
      const customer = data.customer?.id
      const first = customer ? [{ payload: { id: customer }, selector: `redact-customer:${shop}` }] : []
      return { events: [...first, ...orders] }
    }
    case 'customers/data_request':
      return { events: [{ payload: data, selector: `data-request:${shop}` }] }
    case 'shop/redact':
      return { events: [{ payload: data, selector: `redact-shop:${shop}` }] }
    default:
      return { events: [] }
  }
}
