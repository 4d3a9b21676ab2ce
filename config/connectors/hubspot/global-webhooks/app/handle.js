// HubSpot sends up to 100 hints at once, of all accounts of the app; the account of each is its portalId. Items of the
// journal come as they stand in its files.
const COLLECTIONS = {
  company: 'accounts', contact: 'contacts', deal: 'opportunities', product: 'products',
  '0-1': 'contacts', '0-2': 'accounts', '0-3': 'opportunities', '0-7': 'products', '0-27': 'tasks', '0-46': 'notes',
  '0-123': 'orders', '0-136': 'leads',
}
const TYPES = {
  creation: 'created', propertyChange: 'updated', restore: 'changed', deletion: 'deleted', privacyDeletion: 'erased',
}

const ACTIONS = {
  CREATE: 'created', UPDATE: 'updated', DELETE: 'deleted', RESTORE: 'changed', SNAPSHOT: 'changed', GDPR_DELETE: 'erased',
}

// The same of an item of the journal (webhooks journal, "Event data format"). How merges and associations are told there is
// not documented: every record that is named is fetched, and what was merged away is not there.
function kept(item) {
  const { action, objectTypeId, objectId } = item
  if (action === 'MERGE') {
    const ids = [objectId, item.newObjectId, item.primaryObjectId, ...(item.mergedObjectIds ?? [])]
    return [...new Set(ids.filter((id) => id !== undefined && id !== null).map(String))]
      .map((id) => [objectTypeId, id, 'changed'])
  }
  if (action === 'ASSOCIATION_ADDED' || action === 'ASSOCIATION_REMOVED') {
    return [
      [item.fromObjectTypeId ?? objectTypeId, item.fromObjectId ?? objectId, 'changed'],
      [item.toObjectTypeId ?? item.associatedObjectTypeId, item.toObjectId ?? item.associatedObjectId, 'changed'],
    ]
  }
  return [[objectTypeId, objectId, ACTIONS[action]]]
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
    const pushed = item.subscriptionType ?? item.eventType
    const what = pushed ?? (item.action ? `journal ${item.action}` : undefined)
    // Items of the journal name no app: it is the app's own.
    if (pushed && parameters.appId && String(item.appId) !== parameters.appId) {
      console.log(`left alone: ${what} of the app ${item.appId}`)
      continue
    }
    for (const [of, id, type] of pushed ? told(item) : what ? kept(item) : []) {
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
