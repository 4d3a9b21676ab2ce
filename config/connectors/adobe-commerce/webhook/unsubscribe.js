export default async function unsubscribe({ apiClient, state }) {
  for (const name of state?.ours ?? []) {
    try {
      await apiClient.post(`/V1/eventing/eventUnsubscribe/${name}`)
    } catch (error) {
      // Somebody else took it away, or the module.
      if (error.status !== 404 && error.status !== 400) throw error
    }
  }
}
