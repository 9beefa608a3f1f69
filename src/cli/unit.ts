/** `manifold unit NAME -- LINE`: a systemd unit that runs the line for years. */
import { UsageError } from '../core/errors'

export function unit(name: string, line: readonly string[]): string {
  if (line.length === 0) throw new UsageError(['the command line stands after --: manifold unit NAME -- --from URI --to URI'])
  const words = line.map((word) => (/^[\w@+=:,./-]+$/.test(word) ? word : `"${word.replace(/[\\"]/g, '\\$&').replace(/%/g, '%%').replace(/\$/g, '$$$$')}"`))
  return `[Unit]
Description=manifold ${name}
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/usr/bin/env manifold --name ${name} ${words.join(' ')}
# Its state and spool: /var/lib/manifold
StateDirectory=manifold
DynamicUser=yes
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
