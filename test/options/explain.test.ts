import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { completionScript } from '../../src/options/completions'
import {
  endpointLinks,
  endpointsTable,
  optionHelp,
  flagsHelp,
  flagsPage,
  helpText,
  referencePage,
} from '../../src/options/explain'
import { flags } from '../../src/options/flags'
import { kebab } from '../../src/options/names'
import { amqp, fakes, file, s3, ws } from './fakes'

test('an option is explained with argument, unit, default and other names', () => {
  expect(optionHelp('commitDuration', s3.options.commitDuration)).toEqual({
    name: 'commit-duration',
    usage: 'commit-duration=DURATION',
    text: 'Age of an object. A number without unit counts minutes.',
    default: '5m',
    aliases: [],
    required: false,
  })
  expect(optionHelp('compression', s3.options.compression)).toMatchObject({
    usage: 'compression=none|gzip|zstd',
    default: 'none',
  })
  expect(optionHelp('header', ws.options.header)).toMatchObject({ usage: 'header.NAME=TEXT' })
  expect(optionHelp('send', ws.options.send)).toMatchObject({
    usage: 'send=TEXT',
    text: 'Sent at every open. May be given several times. Another value makes another flow.',
  })
  expect(optionHelp('reconnectEvery', ws.options.reconnectEvery)).toMatchObject({ default: '0' })
  expect(optionHelp('queue', amqp.options.queue)).toMatchObject({
    required: true,
    text: 'Queue. Required. Another value makes another flow.',
  })
  expect(optionHelp('follow', file.options.follow)).toMatchObject({ usage: 'follow', default: 'false' })
})

test('help names forms, every option by side, and examples, within its width', () => {
  for (const endpoint of fakes) {
    const text = helpText(endpoint, 90)
    for (const part of [...endpoint.forms, ...endpoint.examples, ...Object.keys(endpoint.options as object).map(kebab)])
      expect(text).toContain(part)
    for (const line of text.split('\n').filter((each) => each.startsWith('      ')))
      expect(line.length).toBeLessThanOrEqual(90)
  }
  expect(helpText(ws)).toMatch(
    /Options, source and sink:[^]*header\.NAME[^]*Options as a source \(--from\):[^]*reconnect-every[^]*Options as a sink \(--to\):[^]*barrier/,
  )
  expect(helpText(s3)).not.toContain('as a source')
})

test('a page has a table row for each option, with pipes escaped', () => {
  for (const endpoint of fakes)
    for (const key of Object.keys(endpoint.options as object))
      expect(referencePage(endpoint)).toMatch(new RegExp(`^\\| \`${kebab(key)}`, 'm'))
  expect(referencePage(s3)).toContain('| `compression=none\\|gzip\\|zstd` | Compression. | none |')
  for (const line of [...fakes.map(referencePage), flagsPage(flags), endpointLinks(fakes)]
    .flatMap((page) => page.split('\n'))
    .filter((each) => each.startsWith('|')))
    expect(line.replaceAll('\\|', '').match(/\|/g)).toHaveLength(4)
})

test('flags and endpoints are all listed', () => {
  for (const key of Object.keys(flags)) {
    expect(flagsHelp(flags)).toContain(`--${kebab(key)}`)
    expect(flagsPage(flags)).toContain(`--${kebab(key)}`)
  }
  for (const endpoint of fakes)
    expect(`${endpointsTable(fakes)} ${endpointLinks(fakes)}`.split(endpoint.summary)).toHaveLength(3)
})

describe('completions', () => {
  const commands = ['help', 'ls']
  function bash(line: string): string[] {
    const script = `${completionScript('bash', fakes, flags, commands)}\nCOMP_LINE=${JSON.stringify(line)}; COMP_POINT=\${#COMP_LINE}; COMP_WORDBREAKS=' '; _manifold; printf '%s\\n' "\${COMPREPLY[@]}"`
    const directory = mkdtempSync(join(tmpdir(), 'manifold-completions-'))
    try {
      return execFileSync('bash', ['--norc', '-c', script], { encoding: 'utf8', cwd: directory })
        .trim()
        .split('\n')
        .filter((word) => word !== '')
    } finally {
      rmSync(directory, { recursive: true })
    }
  }

  test('bash offers schemes, options of the endpoint and side, values, flags and commands', () => {
    expect(bash('manifold --from ')).toEqual(expect.arrayContaining(['-', 'file:', 'wss://', 'generate:']))
    expect(bash('manifold --from ')).not.toContain('s3://')
    expect(bash('manifold --from - --to s')).toEqual(['s3://'])
    expect(bash('manifold --from wss://h/p re')).toEqual(['reconnect-every='])
    expect(bash('manifold --from a.log fo')).toEqual(['follow'])
    expect(bash('manifold --from - --to s3://b/p region=x comp')).toEqual([
      'compression=none',
      'compression=gzip',
      'compression=zstd',
    ])
    expect(bash('manifold --from - --to s3://b/p compression=z')).toEqual(['compression=zstd'])
    expect(bash('manifold --from wss://h/p --gi')).toEqual(['--give-up-after'])
    expect(bash('manifold --from wss://h/p --quiet re')).toEqual([])
    expect(bash('manifold h')).toEqual(['help'])
  })
})
