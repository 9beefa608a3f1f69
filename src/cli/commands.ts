/** Everything but the run itself: help, the flows of this machine, and what is done to them. */
import { Command, CommanderError } from 'commander'
import { DiskFailed, FlowHeld, UsageError, lineOf } from '../core/errors'
import { EXIT } from './exit'

type End = number | NodeJS.Signals

export async function runSubcommand(argv: readonly string[]): Promise<End> {
  let end: End = EXIT.complete
  const program = new Command('manifold')
  program.exitOverride().configureOutput({ writeErr: (text) => { process.stderr.write(text.replace(/^error: /, 'manifold: ')) } })
    .usage('--from URI [name=value ...] --to URI [name=value ...] [flags]').description('Moves streams of records between Kinesis, S3, RabbitMQ, Kafka, WebSocket, files and stdio.')
    .helpCommand(false).helpOption('-h, --help', 'this').showSuggestionAfterError(true).configureHelp({ showGlobalOptions: false })
  program.action(async () => { process.stdout.write(await overview(program)) })
  program.command('help').argument('[scheme]', 'an endpoint, or a command').description('what an endpoint or a command does; alone, this').action(async (scheme?: string) => { end = await help(program, scheme) })
  program.command('endpoints').description('what there is to read from and write to').action(async () => { process.stdout.write(await (await import('./help.js')).endpointsText()) })
  program.command('ls').description('flows known here: where they are, what they hold').option('--state <DIR>', 'directory of state').option('--json', 'one JSON object a flow')
    .action(async (given: { state?: string; json?: true }) => { await (await import('./flows.js')).list(given.state, given.json === true) })
  program.command('forget').argument('<name>').argument('[sink]', 'only this sink: what it was still to get counts as dropped').option('--state <DIR>', 'directory of state').description('removes a flow, or one sink of it, with all it holds')
    .action(async (name: string, sink: string | undefined, given: { state?: string }) => { await (await import('./flows.js')).forget(given.state, name, sink) })
  const spool = program.command('spool').description('what lies in spools')
  spool.command('drain').argument('<name>').option('--state <DIR>', 'directory of state').option('--instance <N>', 'which instance of the flow', '0').description('delivers what a flow that is not running still holds')
    .action(async (name: string, given: { state?: string; instance: string }) => { end = await (await import('./flows.js')).drain(given.state, name, Number(given.instance)) })
  program.command('check').description('reads the command line that follows, resolves its placeholders and opens nothing').allowUnknownOption().allowExcessArguments().helpOption(false)
    .action(async () => { end = await (await import('./check.js')).check(argv.slice(argv.indexOf('check') + 1)) })
  program.command('unit').argument('<name>').description('a systemd unit for the command line after --').allowUnknownOption().allowExcessArguments()
    .action(async (name: string) => { process.stdout.write((await import('./unit.js')).unit(name, argv.includes('--') ? argv.slice(argv.indexOf('--') + 1) : [])) })
  program.command('completions').argument('<shell>', 'bash, zsh or fish').description('a completion script').action(async (shell: string) => { process.stdout.write(await (await import('./help.js')).completions(shell)) })
  try {
    await program.parseAsync(argv, { from: 'user' })
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.complete : EXIT.usage
    if (error instanceof UsageError) { for (const fault of error.faults) process.stderr.write(`manifold: ${fault}\n`); return EXIT.usage }
    if (error instanceof FlowHeld || error instanceof DiskFailed) { process.stderr.write(`manifold: ${lineOf(error)}\n`); return error instanceof FlowHeld ? EXIT.held : EXIT.disk }
    throw error
  }
  return end
}

async function overview(program: Command): Promise<string> { return `${program.helpInformation()}\n${await (await import('./help.js')).flagsText()}` }

async function help(program: Command, topic: string | undefined): Promise<End> {
  if (topic === undefined) { process.stdout.write(await overview(program)); return EXIT.complete }
  const command = program.commands.find((each) => each.name() === topic)
  if (command !== undefined) { process.stdout.write(command.helpInformation()); return EXIT.complete }
  process.stdout.write(await (await import('./help.js')).schemeText(topic))
  return EXIT.complete
}
