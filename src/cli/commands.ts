/** Runs every command except a run itself: help, and commands on the flows of this machine. */
import { Command, CommanderError } from 'commander'
import { DiskFailed, FlowRunning, ManifoldError, UsageError, lineOf } from '../core/errors'
import { flushStdout, handleStdoutErrors } from './stdout'
import { EXIT, type ProcessEnd } from '../core/flow/exit-code'
import {
  COMMANDS,
  completions,
  endpointsText,
  overviewText,
  schemeText,
  SUMMARY,
  USAGE,
  type CommandName,
} from './help'
import { schemeOf } from './plain-help'
import { ignoreStderrErrors, writeStderr } from './stderr'

export async function runSubcommand(argv: readonly string[]): Promise<ProcessEnd> {
  ignoreStderrErrors()
  let end: ProcessEnd = EXIT.complete
  // A flow that is being drained may itself write to stdout.
  const answers = argv[0] !== 'spool'
  if (answers) handleStdoutErrors()
  const program = new Command('manifold')
  program
    .exitOverride()
    .configureOutput({
      writeErr: (text) => {
        writeStderr(text.replace(/^error: /, 'manifold: '))
      },
    })
    .usage(USAGE)
    .description(SUMMARY)
    .helpCommand(false)
    .helpOption('-h, --help', 'this')
    .showSuggestionAfterError(true)
    .configureHelp({ showGlobalOptions: false })
  program.action(async () => {
    process.stdout.write(await overviewText())
  })
  const command = (name: CommandName): Command => program.command(name).description(COMMANDS[name][1])
  command('help')
    .argument('[scheme]', 'an endpoint, or a command')
    .action(async (scheme?: string) => {
      end = await help(program, scheme)
    })
  command('endpoints').action(async () => {
    process.stdout.write(await endpointsText())
  })
  command('ls')
    .option('--state <DIR>', 'directory of state')
    .option('--json', 'one JSON object a flow')
    .action(async (given: { state?: string; json?: true }) => {
      await (await import('./flows.js')).list(given.state, given.json === true)
    })
  command('forget')
    .argument('<name>')
    .argument('[sink]', 'only this sink: what it was still to get counts as dropped')
    .option('--state <DIR>', 'directory of state')
    .option('--force', 'also what was not delivered, which is lost then')
    .action(async (name: string, sink: string | undefined, given: { state?: string; force?: true }) => {
      await (await import('./flows.js')).forget(given.state, name, sink, given.force === true)
    })
  command('spool')
    .command('drain')
    .argument('<name>')
    .option('--state <DIR>', 'directory of state')
    .option('--instance <N>', 'which instance of the flow', '0')
    .description(COMMANDS.spool[1])
    .action(async (name: string, given: { state?: string; instance: string }) => {
      end = await (await import('./flows.js')).drain(given.state, name, Number(given.instance))
    })
  command('check')
    .allowUnknownOption()
    .allowExcessArguments()
    .helpOption(false)
    .action(async () => {
      end = await (await import('./check.js')).check(argv.slice(argv.indexOf('check') + 1))
    })
  command('unit')
    .argument('<name>')
    .allowUnknownOption()
    .allowExcessArguments()
    .action(async (name: string) => {
      process.stdout.write(
        (await import('./unit.js')).unit(name, argv.includes('--') ? argv.slice(argv.indexOf('--') + 1) : []),
      )
    })
  command('completions')
    .argument('<shell>', 'bash, zsh or fish')
    .action(async (shell: string) => {
      process.stdout.write(await completions(shell))
    })
  try {
    await program.parseAsync(argv, { from: 'user' })
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.complete : EXIT.usage
    if (error instanceof UsageError) {
      for (const fault of error.faults) writeStderr(`manifold: ${fault}\n`)
      return EXIT.usage
    }
    if (error instanceof FlowRunning || error instanceof DiskFailed) {
      writeStderr(`manifold: ${lineOf(error)}\n`)
      return error instanceof FlowRunning ? EXIT.flowInUse : EXIT.disk
    }
    if (error instanceof ManifoldError) {
      writeStderr(`manifold: ${lineOf(error)}\n`)
      return EXIT.usage
    }
    throw error
  }
  if (answers) await flushStdout()
  return end
}

async function help(program: Command, topic: string | undefined): Promise<ProcessEnd> {
  if (topic === undefined) {
    process.stdout.write(await overviewText())
    return EXIT.complete
  }
  const command = program.commands.find((each) => each.name() === topic)
  if (command !== undefined) {
    process.stdout.write(command.helpInformation())
    return EXIT.complete
  }
  process.stdout.write(await schemeText(schemeOf(topic)))
  return EXIT.complete
}
