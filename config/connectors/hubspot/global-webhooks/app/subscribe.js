// What the journal shall tell of one account (webhooks journal, "Create or update a subscription"): of each object that is
// read, the properties that are read; of contacts, privacy deletions; and associations that polls cannot see.
const OBJECTS = {
  contacts: '0-1', accounts: '0-2', opportunities: '0-3', products: '0-7', tasks: '0-27', notes: '0-46',
  orders: '0-123', leads: '0-136',
}
const ASSOCIATED = { opportunities: ['0-1'], notes: ['0-1', '0-2', '0-3'], tasks: ['0-1', '0-2', '0-3'] }

function wishes(account, fields) {
  const portalId = Number(account)
  const all = []
  for (const [collection, objectTypeId] of Object.entries(OBJECTS)) {
    if (!fields[collection]) continue
    const actions = ['CREATE', 'UPDATE', 'DELETE', 'MERGE', 'RESTORE']
    // Whether all properties are told of where none is named is not documented.
    all.push({ subscriptionType: 'OBJECT', portalId, objectTypeId, actions, properties: fields[collection] })
    if (ASSOCIATED[collection]) {
      all.push({
        subscriptionType: 'ASSOCIATION', portalId, objectTypeId, actions: ['ASSOCIATION_ADDED', 'ASSOCIATION_REMOVED'],
        associatedObjectTypeIds: ASSOCIATED[collection],
      })
    }
  }
  if (fields.contacts) {
    all.push({ subscriptionType: 'GDPR_PRIVACY_DELETION', portalId, objectTypeId: '0-1', actions: ['GDPR_DELETE'] })
  }
  return all
}

const includes = (has, wanted) => (wanted ?? []).every((one) => (has ?? []).includes(one))
const isFor = (one, wish) =>
  String(one.portalId) === String(wish.portalId) && one.subscriptionType === wish.subscriptionType &&
  one.objectTypeId === wish.objectTypeId && !one.deletedAt
const covers = (one, wish) =>
  isFor(one, wish) && includes(one.actions, wish.actions) && includes(one.properties, wish.properties) &&
  includes(one.associatedObjectTypeIds, wish.associatedObjectTypeIds)

async function drop(apiClient, path) {
  try {
    await apiClient.delete(path)
  } catch (error) {
    if (error.status !== 404) throw error
  }
}

async function make(apiClient, path, wish, former) {
  try {
    return await apiClient.post(path, wish)
  } catch (error) {
    if (error.status !== 409 || !former) throw error
    await drop(apiClient, `${path}/${former.id}`)
    return apiClient.post(path, wish)
  }
}

export default async function subscribe({ apiClient, parameters, account, fields }) {
  if (!account) throw new Error('the portal of this connection is not known')
  const path = `/webhooks-journal/subscriptions/${parameters.journalVersion}`
  const there = (await apiClient.get(path))?.results ?? []
  const [ids, refused] = [[], []]
  for (const wish of wishes(account, fields)) {
    const good = there.find((one) => covers(one, wish))
    if (good) {
      ids.push(String(good.id))
      continue
    }
    const former = there.find((one) => isFor(one, wish))
    try {
      const made = await make(apiClient, path, wish, former)
      ids.push(String(made.id))
      // "Create or update": it may be the same one, or a second.
      if (former && String(former.id) !== String(made.id)) await drop(apiClient, `${path}/${former.id}`)
    } catch (error) {
      // What the app may not read, such as leads without their scope, costs that object only.
      if (![400, 403].includes(error.status)) throw error
      refused.push(`${wish.subscriptionType} ${wish.objectTypeId}`)
      console.log(`refused: ${wish.subscriptionType} of ${wish.objectTypeId}: ${error.message}`)
    }
  }
  if (ids.length === 0) throw new Error(`HubSpot refused every subscription of the journal: ${refused.join(', ')}`)
  return { state: { ids, refused, fields: crypto.hash('sha256', JSON.stringify(fields)) } }
}
