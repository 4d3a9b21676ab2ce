// The stages of all pipelines of deals, each with the pipeline it belongs to.
export default async function scan({ apiClient, parameters }) {
  const { results } = await apiClient.get(`${parameters.pipelinesPath}/deals`)
  const stages = ({ label, stages }) => stages.map((stage) => ({ ...stage, pipeline: label }))
  return { records: results.flatMap(stages) }
}
