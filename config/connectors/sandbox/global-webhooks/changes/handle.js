// The events of all accounts come here; the account is in the body.
export default async function handle({ data }) {
  const [noun] = data.event.split('.')
  return {
    events: [{ payload: data, selector: `${noun}/${data.account_id}` }],
    response: { status: 200, data: { received: data.id } },
  }
}
