/** Makes a systemd unit that runs a command line for years: `manifold unit NAME -- LINE`. */
import { UsageError } from '../core/errors'
import { registry } from '../endpoints/registry'
import { parseCommandLine } from '../options/command-line'
import { redactArgv } from '../options/redact'
import { placeholdersOf, templateOf } from '../options/template'
import { nameFault } from '../state/directory'

/** systemd has to load each credential that `{file:%d/NAME}` names. */
const CREDENTIAL = /\{file:%d\/([^{}/]+)\}/g

/** @throws UsageError if the line cannot be run */
export function unit(name: string, line: readonly string[]): string {
  if (line.length === 0)
    throw new UsageError(['the command line stands after --: manifold unit NAME -- --from URI --to URI'])
  const fault = nameFault(name)
  if (fault !== undefined) throw new UsageError([fault])
  parseCommandLine(['--name', name, ...line], {}, registry)
  const { words: safe, moved } = withoutSecrets(name, line)
  const credentials = new Set(
    safe.flatMap((word) => [...word.matchAll(CREDENTIAL)].map(([, credential]) => credential)),
  )
  const words = safe.map((word) =>
    /^[\w@+=:,./-]+$/.test(word)
      ? word
      : `"${word.replace(/[\\"]/g, '\\$&').replace(/%/g, '%%').replace(/\$/g, '$$$$')}"`,
  )
  return `${moved.map(credentialComment).join('')}[Unit]
Description=manifold ${name}
Wants=network-online.target
After=network-online.target
# It is to run for years: however often it ended, it is started again.
StartLimitIntervalSec=0

[Service]
ExecStart=/usr/bin/env manifold --name ${name} ${words.join(' ')}
# Its state and spool: /var/lib/manifold
StateDirectory=manifold
${[...credentials].map((credential) => `LoadCredential=${credential}:/etc/manifold/${credential}\n`).join('')}DynamicUser=yes
Restart=always
RestartSec=1
# Usage, another process on this flow, a failed disk: trying again does not mend them.
RestartPreventExitStatus=2 74 75
# SIGTERM drains within --grace, 30 s.
TimeoutStopSec=45
KillSignal=SIGTERM
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
`
}

interface MovedSecret {
  readonly credential: string
  readonly argument: string
}

/** Every user of the machine may read a unit. So each secret of the line is replaced by a credential of systemd. */
function withoutSecrets(
  name: string,
  line: readonly string[],
): { readonly words: readonly string[]; readonly moved: readonly MovedSecret[] } {
  const credentials: string[] = []
  const words = redactArgv(line, registry, (value) => {
    // A value with a placeholder keeps its secret elsewhere already.
    if (value === '' || placeholdersOf(templateOf(value)).length > 0) return value
    const credential = `${name}-secret-${credentials.length + 1}`
    credentials.push(credential)
    return `{file:%d/${credential}}`
  })
  const shown = redactArgv(line, registry)
  const moved = credentials.map((credential) => {
    const index = words.findIndex((word) => word.includes(`{file:%d/${credential}}`))
    return { credential, argument: shown[index] ?? '' }
  })
  return { words, moved }
}

function credentialComment({ credential, argument }: MovedSecret): string {
  return `# Write the secret of ${argument.replace(/\s/g, ' ')} into /etc/manifold/${credential}, mode 0600; it stood in the line and is not repeated here.\n`
}
