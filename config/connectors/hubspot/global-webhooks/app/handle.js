// HubSpot sends up to 100 hints at once, of all accounts of the app; the account of each is its portalId.
const COLLECTIONS = {
  company: 'accounts', contact: 'contacts', deal: 'opportunities', product: 'products',
  '0-1': 'contacts', '0-2': 'accounts', '0-3': 'opportunities', '0-7': 'products', '0-27': 'tasks', '0-46': 'notes',
  '0-123': 'orders', '0-136': 'leads',
}
const TYPES = {
  creation: 'created', propertyChange: 'updated', restore: 'changed', deletion: 'deleted', privacyDeletion: 'erased',
}

// What one item says: [noun or objectTypeId, id, type], once for each record that it is about.
function told(item) {
  const [noun, verb] = (item.subscriptionType ?? item.eventType).split('.')
  const of = noun === 'object' ? item.objectTypeId : noun
  if (verb === 'merge') {
    // What the winner's id is differs: a merge may make a record of its own.
    const winner = item.newObjectId ?? item.primaryObjectId
    const losers = [item.primaryObjectId, ...(item.mergedObjectIds ?? [])].filter((id) => id !== winner)
    return [[of, winner, 'changed'], ...losers.map((id) => [of, id, 'deleted'])]
  }
  if (verb === 'associationChange') {
    const [from, to] = (item.associationType ?? '').toLowerCase().split('_to_')
    return [
      [item.fromObjectTypeId ?? (COLLECTIONS[from] ? from : of), item.fromObjectId, 'changed'],
      [item.toObjectTypeId ?? to, item.toObjectId, 'changed'],
    ]
  }
  return [[of, item.objectId, TYPES[verb]]]
}

export default async function handle({ data, parameters }) {
  const events = []
  for (const item of Array.isArray(data) ? data : [data]) {
    const what = item.subscriptionType ?? item.eventType
    if (parameters.appId && String(item.appId) !== parameters.appId) {
      console.log(`left alone: ${what} of the app ${item.appId}`)
      continue
    }
    for (const [of, id, type] of what ? told(item) : []) {
      const collection = COLLECTIONS[of]
      if (!collection || !type || id === undefined) {
        console.log(`left alone: ${what} ${item.eventId}`)
        continue
      }
      // eventId is not unique (webhooks guide); two hints of one record become one fetch all the same.
      const { eventId, occurredAt } = item
      events.push({ payload: { collection, type, id, what, eventId, occurredAt }, selector: `portal:${item.portalId}` })
    }
  }
  return { events }
}
