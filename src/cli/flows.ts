/** Runs the commands on stored flows: list, forget, drain. */
import { UsageError } from '../core/errors'
import { existingStateRoot, stateRoot } from '../state/directory'
import { flowsNamed, listFlows, undelivered } from '../state/flows'
import { forgetFlow } from '../state/forget'
import { writeStderr } from './stderr'

const warningsOnly = {
  debug: () => undefined,
  info: () => undefined,
  warn: (message: string) => {
    writeStderr(`manifold: ${message}\n`)
  },
}

export async function list(state: string | undefined, json: boolean): Promise<void> {
  for (const flow of await listFlows(await existingStateRoot(stateRoot(state)))) {
    const waiting = flow.state === undefined ? [] : undelivered(flow.state)
    const gap = flow.state?.run?.gaps.at(-1)
    if (json) {
      process.stdout.write(
        `${JSON.stringify({ name: flow.name, instance: flow.instance, held: flow.held, pid: flow.holder, sources: flow.sources.map(({ label }) => label), sinks: flow.sinks.map(({ label }) => label), waiting, lastGap: gap, fault: flow.fault, directory: flow.directory })}\n`,
      )
      continue
    }
    const running = flow.held ? `running${flow.holder === undefined ? '' : ` as ${flow.holder}`}` : 'not running'
    process.stdout.write(
      `${flow.name}${flow.instance === 0 ? '' : ` (instance ${flow.instance})`}: ${running}; ${flow.sources.map(({ label }) => label).join(', ')} to ${flow.sinks.map(({ label }) => label).join(', ')}\n`,
    )
    if (flow.fault !== undefined) process.stdout.write(`  unreadable: ${flow.fault}\n`)
    for (const { label, records } of waiting) process.stdout.write(`  ${records ?? 'some'} records wait for ${label}\n`)
    if (gap !== undefined) process.stdout.write(`  last gap: ${gap.from} to ${gap.to}, ${gap.why}\n`)
    process.stdout.write(`  in ${flow.directory}\n`)
  }
}

export async function forget(
  state: string | undefined,
  name: string,
  sink: string | undefined,
  force: boolean,
): Promise<void> {
  const root = await existingStateRoot(stateRoot(state))
  if (root === undefined) throw new UsageError([`there is no state in ${stateRoot(state)}`])
  const { flows, lost, left } = await forgetFlow(root, name, warningsOnly, {
    force,
    ...(sink === undefined ? {} : { sink }),
  })
  process.stdout.write(
    `forgotten: ${name}${sink === undefined ? '' : `, its sink ${sink}`} (${flows.length} instance${flows.length === 1 ? '' : 's'})\n`,
  )
  for (const one of lost) process.stdout.write(`given up: ${one}\n`)
  for (const directory of left) process.stdout.write(`left, for it is no spool file: what lies in ${directory}\n`)
}

export async function drain(
  state: string | undefined,
  name: string,
  instance: number,
): Promise<number | NodeJS.Signals> {
  const root = await existingStateRoot(stateRoot(state))
  const flow = (await flowsNamed(root, name)).find((each) => each.instance === instance)
  if (flow === undefined)
    throw new UsageError([
      `there is no flow ${name}${instance === 0 ? '' : ` with an instance ${instance}`}; manifold ls shows what there is`,
    ])
  if (flow.fault !== undefined) throw new UsageError([flow.fault])
  const command = flow.state?.command
  if (command === undefined)
    throw new UsageError([
      `the flow ${name} did not keep its command line, for a secret stood in it: run that line again, it delivers what is held first`,
    ])
  try {
    process.chdir(command.cwd)
  } catch (error) {
    throw new UsageError([
      `the flow ${name} ran in ${command.cwd}, which cannot be entered (${(error as NodeJS.ErrnoException).code ?? 'unknown'}): make it again, for its line may name paths from there`,
    ])
  }
  const env: NodeJS.ProcessEnv = { ...process.env, MANIFOLD_ARGS: command.args }
  return (await import('./run.js')).runCommand(command.argv, env, { name, instance, root: root ?? stateRoot(state) })
}
