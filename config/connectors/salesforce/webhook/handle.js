// An outbound message (SOAP, WSDL of the workflow action): up to 100 notifications, in any order, perhaps twice. Each is a
// hint to fetch the record; the message's own fields may be fewer and older.
const COLLECTIONS = {
  Account: 'accounts', Contact: 'contacts', Lead: 'leads', Note: 'notes', ContentNote: 'notes',
  Opportunity: 'opportunities', Order: 'orders', Product2: 'products', Task: 'tasks', User: 'users',
}
// What is a part of a record, and the field that names it; without that field such a message tells nothing.
const PARTS = { OrderItem: ['orders', 'OrderId'], PricebookEntry: ['products', 'Product2Id'] }
const soap = (status, body) => ({
  status,
  headers: { 'content-type': 'text/xml; charset=utf-8' },
  data: `<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>${body}</soapenv:Body></soapenv:Envelope>`,
})
const fault = (status, text) =>
  soap(status, `<soapenv:Fault><faultcode>soapenv:Client</faultcode><faultstring>${text}</faultstring></soapenv:Fault>`)
const ACK = soap(200,
  '<notificationsResponse xmlns="http://soap.sforce.com/2005/09/outbound"><Ack>true</Ack></notificationsResponse>')

// The 18 characters of an id of 15: one more for each five, which says which of them are capitals.
const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ012345'
const id18 = (id) => {
  if (!/^[A-Za-z0-9]{15}([A-Za-z0-9]{3})?$/.test(id)) throw new Error('an id of a record has 15 or 18 letters and digits')
  if (id.length === 18) return id
  const capitals = (five) => [...five].reduce((sum, c, at) => sum + (/[A-Z]/.test(c) ? 1 << at : 0), 0)
  return id + [0, 5, 10].map((at) => LETTERS[capitals(id.slice(at, at + 5))]).join('')
}

export default async function handle({ rawBody, account }) {
  let message
  try {
    message = xml.parse(rawBody).Envelope?.Body?.notifications
  } catch {
    // Nothing of the body is told: it may hold a secret.
  }
  if (!message?.OrganizationId) return { events: [], response: fault(400, 'This is no outbound message') }
  if (!account) throw new Error('the organisation of this connection is not known yet; connect it again')
  if (String(message.OrganizationId).slice(0, 15) !== account.slice(0, 15)) {
    console.log(`refused: a message of the organisation ${message.OrganizationId}`)
    return { events: [], response: fault(403, 'This message is of another organisation') }
  }
  const events = []
  for (const { sObject } of [message.Notification ?? []].flat()) {
    const object = String(sObject?.['@type']).split(':').pop()
    const [collection, name] = PARTS[object] ?? [COLLECTIONS[object], 'Id']
    if (!collection) continue
    if (PARTS[object] && !sObject[name]) console.log(`left alone: a message about ${object} without its field ${name}`)
    else events.push({ collection, type: 'changed', id: id18(sObject[name]) })
  }
  return { events, response: ACK }
}
