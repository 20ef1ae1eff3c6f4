// Evaluates requests against policies with @cloud-copilot/iam-simulate. Reads a JSON list of {policies, boundary,
// resourcePolicy, action, resource, context} from standard input, and writes a JSON list with "allowed", "denied" or the
// reason why a request cannot be evaluated: an invalid policy, or a condition key that AWS does not document for this
// action and resource.
const { createRequire } = require('node:module')
const { readFileSync } = require('node:fs')
const { runSimulation } = createRequire(process.argv[2] + '/')('@cloud-copilot/iam-simulate')

const account = '123456789012'

async function evaluate({ policies, boundary, resourcePolicy, action, resource, context }) {
  const named = (list) => list.map((policy, index) => ({ name: String(index), policy }))
  const result = await runSimulation(
    {
      request: {
        principal: `arn:aws:sts::${account}:assumed-role/role/session`,
        action,
        resource: { resource, accountId: account },
        contextVariables: context,
      },
      identityPolicies: named(policies),
      permissionBoundaryPolicies: boundary ? named([boundary]) : undefined,
      resourcePolicy,
      serviceControlPolicies: [],
      resourceControlPolicies: [],
    },
    {},
  )
  if (result.resultType === 'error') return JSON.stringify(result.errors)
  const ignored = result.result?.ignoredContextKeys ?? []
  if (ignored.length > 0) return `${action} on ${resource} has no condition keys ${ignored.join(', ')}`
  return result.overallResult === 'Allowed' ? 'allowed' : 'denied'
}

async function main() {
  const requests = JSON.parse(readFileSync(0, 'utf8'))
  const answers = []
  for (const request of requests) answers.push(await evaluate(request))
  process.stdout.write(JSON.stringify(answers))
}

main()
