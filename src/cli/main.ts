/** Is the entry of the program. Cheap answers come first, so that `--version` and `help` load nothing else. */
import { print } from './stdout'
import { EXIT, type ProcessEnd } from '../core/flow/exit-code'
import { writeStderr } from './stderr'

export async function main(argv: readonly string[]): Promise<void> {
  let end: ProcessEnd
  try {
    end = await dispatch(argv)
  } catch (error) {
    const outside = (await import('./system-faults.js')).systemFault(error)
    const bug = `this is a bug in manifold, please report it: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`
    writeStderr(`manifold: ${outside?.text ?? bug}\n`)
    end = outside?.code ?? EXIT.bug
  }
  if (typeof end === 'number') process.exit(end)
  // The process ends by the signal itself, so that its parent sees that.
  process.removeAllListeners(end)
  process.kill(process.pid, end)
}

async function dispatch(argv: readonly string[]): Promise<ProcessEnd> {
  const first = argv[0]
  if (first === '--version' || first === '-V' || first === 'version') {
    return print(`manifold ${(await import('./version.js')).version()}\n`)
  }
  // A command is the first word, and a run begins with a flag. A later word that looks like a command belongs to an
  // endpoint.
  const flagged = first === undefined || first.startsWith('-')
  const named = argv.some(
    (word) => word === '--from' || word === '--to' || word.startsWith('--from=') || word.startsWith('--to='),
  )
  const runs = flagged && (named || (process.env['MANIFOLD_ARGS'] ?? '') !== '')
  if (runs) return (await import('./run.js')).runCommand(argv)
  const text = await (await import('./plain-help.js')).plainHelp(argv)
  return text === undefined ? (await import('./commands.js')).runSubcommand(argv) : print(text)
}
