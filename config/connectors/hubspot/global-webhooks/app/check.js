// Whether what was made is there still, and is of the fields that are read today.
export default async function check({ apiClient, parameters, fields, state }) {
  const { results } = (await apiClient.get(`/webhooks-journal/subscriptions/${parameters.journalVersion}`)) ?? {}
  const there = (results ?? []).filter((one) => !one.deletedAt).map((one) => String(one.id))
  const hash = crypto.hash('sha256', JSON.stringify(fields))
  return state.ids.every((id) => there.includes(id)) && hash === state.fields
}
