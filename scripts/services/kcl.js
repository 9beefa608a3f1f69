/**
 * The Kinesis Client Library from Maven Central, and a worker on it (kcl/Worker.java): in production it shares a lease
 * table with manifold. It needs a JDK 17 or later.
 */
'use strict'
const { execFileSync } = require('child_process')
const crypto = require('crypto')
const fs = require('fs')
const path = require('path')
const { bound, cache } = require('./process')

const source = path.join(__dirname, 'kcl', 'Worker.java')
const PACKAGE = 'software.amazon.kinesis:amazon-kinesis-client'

function kind(version) {
  const home = path.join(cache, `kcl-${version}`)
  return {
    home,
    needs: 'maven',
    compiles: true,
    artifacts: [`${PACKAGE}:${version}`, 'org.slf4j:slf4j-simple:2.0.13'],
    // The installation writes this file last. Its name has a hash of the worker's source: a change is installed anew.
    file: path.join(
      home,
      `ready-${crypto.createHash('sha256').update(fs.readFileSync(source)).digest('hex').slice(0, 12)}`,
    ),
    prepare: (folder) => {
      execFileSync(
        'javac',
        ['-nowarn', '-proc:none', '-d', path.join(folder, 'classes'), '-cp', path.join(folder, 'libs', '*'), source],
        { stdio: ['ignore', 'ignore', 'pipe'] },
      )
    },
  }
}
const kinds = { 'kcl-2': kind('2.7.2'), 'kcl-3': kind('3.5.1') }
function available() {
  return Object.keys(kinds).filter((name) => fs.existsSync(kinds[name].file))
}

/**
 * The command that starts a worker.
 * @param {'kcl-2' | 'kcl-3'} name
 * @param {Record<string, string>} options of Worker.java
 */
function command(name, options) {
  const { home } = kinds[name]
  return bound('java', [
    '-Xms64m',
    '-Xmx320m',
    '-XX:+UseSerialGC',
    '-XX:TieredStopAtLevel=1',
    '-Dorg.slf4j.simpleLogger.defaultLogLevel=error',
    '-cp',
    [path.join(home, 'classes'), path.join(home, 'libs', '*')].join(path.delimiter),
    'Worker',
    ...Object.entries(options).map(([key, value]) => `${key}=${value}`),
  ])
}

module.exports = { available, command, kinds }
