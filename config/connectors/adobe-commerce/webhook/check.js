export default async function check({ apiClient, state }) {
  const there = (await apiClient.get('/V1/eventing/getEventSubscriptions')) ?? []
  const known = there.map((event) => event.name)
  return state.events.every((name) => known.includes(name))
}
