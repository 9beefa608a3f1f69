/** Runs `manifold check`, which finds the faults of a command line without opening anything. */
import { registry } from '../endpoints/registry'
import { parseCommandLine, targetsOf } from '../options/command-line'
import { endsOf, refuseLoops } from '../plan/loops'
import { EXIT } from '../core/flow/exit-code'
import { writeStderr } from './stderr'

export async function check(argv: readonly string[]): Promise<number> {
  const line = parseCommandLine(argv, process.env, registry)
  const targets = await targetsOf(line)
  await refuseLoops(endsOf(line, targets))
  for (const [index, { endpoint }] of line.from.entries()) {
    const target = targets.from[index]
    const create = await endpoint.source?.load()
    if (target !== undefined) create?.(target)
  }
  for (const [index, { endpoint }] of line.to.entries()) {
    const target = targets.to[index]
    const create = await endpoint.sink?.load()
    if (target !== undefined) create?.(target)
  }
  for (const warning of line.warnings) writeStderr(`manifold: ${line.redactor.redact(warning)}\n`)
  process.stdout.write(
    `${line.from.map(({ label }) => label).join(' and ')} to ${line.to.map(({ label }) => label).join(' and ')}: nothing wrong that can be seen without connecting\n`,
  )
  return EXIT.complete
}
