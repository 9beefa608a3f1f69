/** Entry of the command: the cheap answers first, so that `--version` and `help` load nothing. */
import { printAndExit } from './stdout'
import { EXIT } from './exit'
import { writeStderr } from './stderr'

export async function main(argv: readonly string[]): Promise<void> {
  let end: number | NodeJS.Signals
  try {
    end = await dispatch(argv)
  } catch (error) {
    const outside = (await import('./system-faults.js')).systemFault(error)
    const bug = `this is a bug in manifold, please report it: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`
    writeStderr(`manifold: ${outside?.text ?? bug}\n`)
    end = outside?.code ?? EXIT.bug
  }
  if (typeof end === 'number') process.exit(end)
  // Ends as the signal would have ended it, so that whoever waits for us sees the same.
  process.removeAllListeners(end)
  process.kill(process.pid, end)
}

async function dispatch(argv: readonly string[]): Promise<number | NodeJS.Signals> {
  const first = argv[0]
  if (first === '--version' || first === '-V' || first === 'version') {
    return printAndExit(`manifold ${(await import('./version.js')).version()}\n`)
  }
  // A command is the first word; a run begins with a flag, and what looks like a command further on is an endpoint's.
  const flagged = first === undefined || first.startsWith('-')
  const named = argv.some(
    (word) => word === '--from' || word === '--to' || word.startsWith('--from=') || word.startsWith('--to='),
  )
  const runs = flagged && (named || (process.env['MANIFOLD_ARGS'] ?? '') !== '')
  if (runs) return (await import('./run.js')).runCommand(argv)
  const text = await (await import('./plain-help.js')).plainHelp(argv)
  return text === undefined ? (await import('./commands.js')).runSubcommand(argv) : printAndExit(text)
}
