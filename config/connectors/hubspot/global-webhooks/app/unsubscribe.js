// Only what was made here: another node of the same app may have made its own.
export default async function unsubscribe({ apiClient, parameters, state }) {
  for (const id of state?.ids ?? []) {
    try {
      await apiClient.delete(`/webhooks-journal/subscriptions/${parameters.journalVersion}/${id}`)
    } catch (error) {
      if (error.status !== 404) throw error
    }
  }
}
