// {"id", "event": "contact.updated", "account_id", "occurred_at", "data": the record, or its id when it was deleted}
export default async function handle({ data }) {
  const [noun, type] = data.event.split('.')
  if (noun !== 'contact') return { events: [] }
  const what = type === 'deleted' ? { id: data.data.id } : { record: data.data }
  return { events: [{ collection: 'contacts', type, ...what }] }
}
